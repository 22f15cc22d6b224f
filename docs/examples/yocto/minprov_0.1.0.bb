SUMMARY = "Provisions a Linux VM on Azure at first boot, without an agent"
DESCRIPTION = "The static form of minprov, from `make static` or `make static-aarch64`; its tarball stands in files/ beside this recipe."
HOMEPAGE = "https://minprov.invalid"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://licenses/minprov;md5=3b83ef96387f14655fc854ddc3c6bd57"

SRC_URI = "file://${BPN}-${PV}-static-linux-${TARGET_ARCH}.tar.gz"

inherit systemd

SYSTEMD_SERVICE:${PN} = "minprov.service"
COMPATIBLE_HOST = "(x86_64|aarch64).*-linux.*"
# A program that is linked to nothing, and has its symbols removed.
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/minprov ${D}${bindir}/minprov
    install -d ${D}${systemd_system_unitdir}
    for unit in minprov.service minprov-custom-data.service minprov-ready.target; do
        install -m 0644 ${S}/units/$unit ${D}${systemd_system_unitdir}
    done
}

FILES:${PN} += "${systemd_system_unitdir}"
RDEPENDS:${PN} = "openssh-keygen openssh-sshd shadow sudo"
