"""The guests: what each is made of. A new guest is a new entry here, and perhaps a tree of files in `trees/`."""

from __future__ import annotations

from dataclasses import dataclass, replace

COMMON = ("iproute2", "kmod", "openssh-server", "procps", "sudo")
SYSTEMD = ("dbus", "libpam-systemd", "systemd-sysv", "udev")
PYTHON = ("python3", "python3-aiofiles", "python3-aiohttp", "python3-defusedxml", "python3-uvloop")

# An initramfs by Debian's own tool, in place of the small one that all guests share. It asks for the kernel's
# configuration, which is not among what they share.
OWN_INITRAMFS = (
    "echo CONFIG_RD_GZIP=y >/boot/config-$(ls /usr/lib/modules)",
    "update-initramfs -c -k $(ls /usr/lib/modules)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A guest: its packages, the file trees laid over them in order, and the commands run in it last."""

    name: str
    packages: tuple[str, ...]
    trees: tuple[str, ...]
    example: str = ""
    """A way to make the file system with minprov in it that docs/embedding.md shows, in place of packages."""
    form: str = ""
    """Which form is at /opt/minprov: `standalone` or `static`."""
    initramfs: bool = False
    """Whether the package that puts that form into an initramfs is installed."""
    files: tuple[tuple[str, str], ...] = ()
    """Files of the project, and where the guest has them."""
    commands: tuple[str, ...] = ()
    append: str = ""
    """What the kernel's command line says besides."""
    etc: str = "/etc"
    """Where on the disk the guest's /etc keeps what is written to it."""
    unpublished: str = ""
    """Why the hostname waits for the first DHCP request of the next boot."""
    warnings: tuple[str, ...] = ()
    """What the first boot warns of."""
    minprov: bool = True
    duties: bool = False
    """Whether the package of the duties is installed besides."""
    tools: bool = False
    """Whether the package of the tools is installed besides."""
    bootloader: bool = False
    """Whether the disk starts by itself, as the image that somebody would upload."""

    @property
    def systemd(self) -> bool:
        """Whether its init is systemd."""
        return "systemd" in self.trees


NETWORKD = Recipe(
    name="networkd",
    packages=(*COMMON, *SYSTEMD, *PYTHON),
    trees=("common", "systemd", "networkd"),
    commands=("systemctl enable --quiet systemd-networkd.service vm-shell.service",),
)

# With a temporary disk, which on Azure sysfs would tell, and with everything that is done with one.
RESOURCE_DISK = replace(
    NETWORKD,
    name="resource-disk",
    trees=(*NETWORKD.trees, "resource-disk"),
    duties=True,
)

# With every duty that is off by default, a unit that waits for Ready, and a root who can log in.
ROOT_PASSWORD = "Golden-Image-7"
DUTIES = replace(
    NETWORKD,
    name="duties",
    trees=(*NETWORKD.trees, "duties"),
    duties=True,
    commands=(
        *NETWORKD.commands,
        "systemctl enable --quiet after-ready.service minprov-entropy.service",
        f"echo root:{ROOT_PASSWORD} | chpasswd",
    ),
)
BEST_EFFORT = "sed -i s/required/best-effort/ /etc/minprov/minprov.toml"

# A VM of the platform's pool, which waits there for its owner.
POOLED = replace(
    NETWORKD,
    name="pooled",
    trees=(*NETWORKD.trees, "pooled"),
    duties=True,
    commands=(
        *NETWORKD.commands,
        "install -D --mode=0644 --target-directory=/etc/systemd/system/minprov.service.d "
        "/usr/share/minprov/wait-in-pool.conf",
    ),
)

# As hardening guides have it, and minimal kernels are built: no file system that a disc could be mounted with.
NO_DISC_FILE_SYSTEMS = replace(
    NETWORKD,
    name="no-disc-file-systems",
    commands=(
        *NETWORKD.commands,
        "rm -r /usr/lib/modules/*/kernel/fs/udf /usr/lib/modules/*/kernel/fs/isofs",
        "depmod $(ls /usr/lib/modules)",
    ),
)

# The root file system is read-only, /etc is an overlay with a writable layer, /var, /home and /root are writable.
IMMUTABLE = replace(NETWORKD, name="immutable", append="vm.layout=overlay", etc="/var/overlay/etc")

# The same without the layer: nothing that provisioning needs can be written to /etc.
READ_ONLY_ETC = replace(
    NETWORKD,
    name="read-only-etc",
    append="vm.layout=read-only",
    # As on Hyper-V, whose daemon keeps the pool that the host reads.
    commands=(*NETWORKD.commands, "mkdir -p /var/lib/hyperv", "touch /var/lib/hyperv/.kvp_pool_1"),
)

# With what docs/booting.md says for media that is on a disk and not in a drive.
MEDIA_ON_DISK = replace(NETWORKD, name="media-on-disk", trees=(*NETWORKD.trees, "media-on-disk"))

# Debian's waagent as its package leaves it, for extensions.
BESIDE_WAAGENT = replace(
    NETWORKD,
    name="beside-waagent",
    packages=(*NETWORKD.packages, "waagent", "eject", "isc-dhcp-client", "openssl"),
    trees=(*NETWORKD.trees, "waagent", "prepare-waagent"),
)

# As other distributions and Azure's own images configure it: it provisions a VM that it does not find provisioned.
BESIDE_PROVISIONING_WAAGENT = replace(
    BESIDE_WAAGENT,
    name="beside-provisioning-waagent",
    commands=(*BESIDE_WAAGENT.commands, "sed -i 's/^Provisioning.Agent=.*/Provisioning.Agent=auto/' /etc/waagent.conf"),
)

# Where a VM is created with the metadata security protocol, what leaves for the platform goes by way of an agent.
PROXY_AGENT = replace(
    NETWORKD,
    name="proxy-agent",
    trees=(*NETWORKD.trees, "proxy-agent"),
    files=tuple((f"tests/{name}", f"/opt/tests/{name}") for name in ("harness/bpf.py", "vm/proxy_agent.py")),
    commands=(*NETWORKD.commands, "systemctl enable --quiet azure-proxy-agent.service"),
)

IFUPDOWN = Recipe(
    name="ifupdown",
    packages=(*COMMON, *SYSTEMD, *PYTHON, "ifupdown", "isc-dhcp-client"),
    trees=("common", "systemd", "ifupdown"),
    commands=("systemctl enable --quiet vm-shell.service",),
)

NETWORK_MANAGER = Recipe(
    name="network-manager",
    packages=(*COMMON, *SYSTEMD, *PYTHON, "network-manager"),
    trees=("common", "systemd"),
    commands=("systemctl enable --quiet vm-shell.service",),
)

DHCPCD = Recipe(
    name="dhcpcd",
    packages=(*COMMON, *SYSTEMD, *PYTHON, "dhcpcd"),
    trees=("common", "systemd", "client-first"),
    commands=(
        "systemctl enable --quiet vm-shell.service",
        # As docs/network.md says: Debian's file has the line as a comment.
        "echo hostname >>/etc/dhcpcd.conf",
    ),
)

CLOUD_INIT = Recipe(
    name="cloud-init",
    packages=(*COMMON, *SYSTEMD, "cloud-init", "isc-dhcp-client"),
    trees=("common", "systemd", "networkd"),
    commands=("systemctl enable --quiet systemd-networkd.service vm-shell.service",),
    minprov=False,
)

WAAGENT = Recipe(
    name="waagent",
    packages=(*COMMON, *SYSTEMD, "waagent", "eject", "isc-dhcp-client", "openssl"),
    trees=("common", "systemd", "networkd", "waagent"),
    commands=(
        "systemctl enable --quiet systemd-networkd.service vm-shell.service",
        # Debian leaves provisioning to cloud-init; the agent can do it itself.
        "sed -i 's/^Provisioning.Agent=.*/Provisioning.Agent=waagent/' /etc/waagent.conf",
    ),
    minprov=False,
)

# Without a Python, by the commands of docs/embedding.md.
STATIC = replace(
    NETWORKD,
    name="static",
    packages=(*COMMON, *SYSTEMD),
    form="static",
    minprov=False,
    commands=(
        "ln -s /opt/minprov/minprov /usr/bin/minprov",
        "cd /opt/minprov/units;"
        " cp minprov.service minprov-custom-data.service minprov-ready.target /etc/systemd/system",
        "systemctl enable --quiet systemd-networkd.service vm-shell.service minprov.service minprov-ready.target",
    ),
)

# The crate, which `make bench-vm` builds, and the unit that comes in it. It names groups that Ubuntu has.
AZURE_INIT = Recipe(
    name="azure-init",
    packages=(*COMMON, *SYSTEMD),
    trees=("common", "systemd", "networkd", "azure-init"),
    files=(("build/azure-init/bin/azure-init", "/var/lib/azure-init/azure-init"),),
    commands=(
        "systemctl enable --quiet systemd-networkd.service vm-shell.service azure-init.service",
        "for name in lxd netdev; do groupadd --force --system $name; done",
    ),
    minprov=False,
)

SYSVINIT = Recipe(
    name="sysvinit",
    packages=(*COMMON, *PYTHON, "ifupdown", "isc-dhcp-client", "sysvinit-core", "udev"),
    trees=("common", "ifupdown"),
    commands=("echo 'vm:2345:respawn:/usr/local/sbin/vm-shell' >>/etc/inittab",),
)

OPENRC = Recipe(
    name="openrc",
    packages=(*COMMON, *PYTHON, "ifupdown", "isc-dhcp-client", "openrc", "sysvinit-core", "udev"),
    trees=("common", "ifupdown"),
    # In place of the script for sysvinit that Debian's package installs.
    files=(("units/minprov.openrc", "/etc/init.d/minprov"),),
    commands=(
        "rc-update add minprov boot",
        "echo 'vm:2345:respawn:/usr/local/sbin/vm-shell' >>/etc/inittab",
    ),
)

# The same disk, with a script for the duty alone: nothing else waits for it.
RESOURCE_DISK_SYSVINIT = replace(
    SYSVINIT,
    name="resource-disk-sysvinit",
    trees=(*SYSVINIT.trees, "resource-disk"),
    duties=True,
    commands=(*SYSVINIT.commands, BEST_EFFORT),
)
RESOURCE_DISK_OPENRC = replace(
    OPENRC,
    name="resource-disk-openrc",
    trees=(*OPENRC.trees, "resource-disk"),
    duties=True,
    files=(*OPENRC.files, ("units/minprov-resource-disk.openrc", "/etc/init.d/minprov-resource-disk")),
    commands=(*OPENRC.commands, BEST_EFFORT, "rc-update add minprov-resource-disk boot"),
)

RUNIT = Recipe(
    name="runit",
    packages=(*COMMON, *PYTHON, "ifupdown", "isc-dhcp-client", "runit-init", "udev"),
    trees=("common", "ifupdown"),
    files=(
        ("units/minprov.runit", "/etc/sv/minprov/run"),
        ("tests/vm/trees/common/usr/local/sbin/vm-shell", "/etc/sv/vm-shell/run"),
    ),
    commands=(
        "ln -s /etc/sv/minprov /etc/sv/vm-shell /etc/runit/runsvdir/default",
        # In place of the script for sysvinit that Debian's package installs.
        "mkdir -p /etc/runit/no.emulate.sysv.d; touch /etc/runit/no.emulate.sysv.d/minprov",
    ),
)

# No init system at all: busybox runs one script, which has the line of units/rc.minprov in it.
BUSYBOX = Recipe(
    name="busybox",
    packages=(*COMMON, *PYTHON, "busybox", "udhcpc"),
    trees=("common", "busybox"),
    files=(("units/rc.minprov", "/etc/rc.minprov"),),
    commands=("for name in init poweroff; do ln -s /bin/busybox /sbin/$name; done",),
    unpublished="udhcpc sends the name that it was started with",
)

FINIT = Recipe(
    name="finit",
    packages=(*COMMON, *PYTHON, "finit-plugins", "finit-sysv", "ifupdown", "isc-dhcp-client", "udev"),
    trees=("common", "ifupdown"),
    files=(("units/rc.minprov", "/etc/rc.minprov"),),
    commands=(
        "echo 'task [2345] name:minprov /bin/sh /etc/rc.minprov -- Provisioning this VM' >/etc/finit.d/minprov.conf",
        "echo 'service [2345] name:vm-shell /usr/local/sbin/vm-shell' >/etc/finit.d/vm-shell.conf",
    ),
)

# Services of s6 alone, which Debian has; busybox stands in for what starts them.
S6 = replace(
    BUSYBOX,
    name="s6",
    packages=(*BUSYBOX.packages, "s6"),
    files=(("units/minprov.runit", "/etc/s6/minprov/run"),),
    commands=(
        *BUSYBOX.commands,
        "sed -i 's/^sv once/s6-svc -O/' /etc/s6/minprov/run",
        "sed -i '/minprov/d' /etc/init.d/rcS",
        "echo '::respawn:/usr/bin/s6-svscan /etc/s6' >>/etc/inittab",
    ),
)

# Hooks, under each init that has no units.
HOOKS = tuple(
    replace(recipe, name=f"hooks-{recipe.name}", trees=(*recipe.trees, "hooks"), duties=True)
    for recipe in (SYSVINIT, OPENRC, RUNIT, FINIT, S6, BUSYBOX)
)

# Debian's reference policy, enforcing from the first instruction of init.
SELINUX = replace(
    NETWORKD,
    name="selinux",
    packages=(*NETWORKD.packages, "policycoreutils", "selinux-policy-default", "selinux-utils"),
    append="security=selinux selinux=1 enforcing=1",
    unpublished="networkctl gets no answer under Debian's policy",
    warnings=("minprov: publish-hostname failed: system tool failed: tool=networkctl, detail=no end after 10 s",),
    commands=(
        *NETWORKD.commands,
        # So that there always is a DHCP client to be told of the hostname, which is what the policy is in the way of.
        "mkdir /etc/systemd/system/minprov.service.d",
        "printf '[Unit]\\nAfter=systemd-networkd.service\\n' >/etc/systemd/system/minprov.service.d/client-first.conf",
        "printf 'SELINUX=enforcing\\nSELINUXTYPE=default\\n' >/etc/selinux/config",
        "touch /etc/machine-id",
        "setfiles -F /etc/selinux/default/contexts/files/file_contexts /",
    ),
)

# With the rule that docs/booting.md adds to it.
SELINUX_WITH_RULE = replace(
    SELINUX,
    name="selinux-with-rule",
    unpublished="",
    warnings=(),
    files=(("docs/examples/selinux/minprov.cil", "/etc/selinux/minprov.cil"),),
    commands=("semodule --noreload --install=/etc/selinux/minprov.cil", *SELINUX.commands),
)

# As somebody builds an image for Azure: a kernel, an initramfs and a bootloader of its own, and nothing that is a VM's.
APPLIANCE = replace(
    NETWORKD,
    name="appliance",
    packages=(*NETWORKD.packages, "initramfs-tools", "linux-image-cloud-amd64", "zstd"),
    commands=(*NETWORKD.commands, "rm /etc/ssh/ssh_host_*"),
    bootloader=True,
)

# The same, with the mistake that `boot` is there to find.
FORGOTTEN = replace(APPLIANCE, name="forgotten", minprov=False)

MMDEBSTRAP = Recipe(
    name="mmdebstrap",
    packages=(),
    example="mmdebstrap",
    trees=("common", "systemd"),
    commands=("systemctl enable --quiet vm-shell.service",),
    minprov=False,
)

MKOSI = replace(MMDEBSTRAP, name="mkosi", example="mkosi")

# From a distribution whose initramfs is made by this tool, provisioned before its init starts.
INITRAMFS_TOOLS = Recipe(
    name="initramfs-tools",
    packages=(*COMMON, *SYSTEMD, "initramfs-tools"),
    trees=("common", "systemd", "networkd"),
    form="standalone",
    files=tuple(
        (f"docs/examples/initramfs-tools/{script}", f"/etc/initramfs-tools/{script}")
        for script in ("hooks/minprov", "scripts/local-bottom/minprov")
    ),
    commands=(
        "systemctl enable --quiet systemd-networkd.service vm-shell.service",
        *OWN_INITRAMFS,
    ),
    append="root=/dev/vda ro",
    minprov=False,
)

# Not for the machine that it is made on, which is what dracut does by default.
DRACUT = replace(
    INITRAMFS_TOOLS,
    name="dracut",
    packages=(*COMMON, *SYSTEMD, "dracut-network"),
    form="static",
    initramfs=True,
    files=(),
    commands=(
        "systemctl enable --quiet systemd-networkd.service vm-shell.service",
        "release=$(ls /usr/lib/modules); dracut --no-hostonly /boot/initrd.img-$release $release",
    ),
)

# What an image is made of: each is booted, deprovisioned, and booted as another VM.
DEPROVISIONED = replace(NETWORKD, name="deprovisioned-networkd", tools=True)
DEPROVISIONED_OTHERS = tuple(
    replace(recipe, name=f"deprovisioned-{recipe.name}", tools=True)
    for recipe in (IMMUTABLE, SELINUX, SYSVINIT, OPENRC, BUSYBOX)
)

# The image has the first VM's administrator already: minprov adopts the account.
ADOPTING = replace(
    DEPROVISIONED,
    name="deprovisioned-adopting",
    commands=(*NETWORKD.commands, "useradd --create-home --shell /bin/bash azureuser"),
)

# waagent makes the first VM, minprov those of the image.
FROM_WAAGENT = replace(
    WAAGENT,
    name="deprovisioned-waagent",
    packages=(*WAAGENT.packages, *PYTHON),
    minprov=True,
    duties=True,
    tools=True,
)
