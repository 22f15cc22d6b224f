#!/bin/bash
# Puts minprov, which is at /opt/minprov in its static or its standalone form, into the initramfs, with what it needs there.

check() {
    if [[ ! -x ${dracutsysrootdir-}/opt/minprov/minprov ]]; then
        dwarn "minprov: there is none at /opt/minprov, so this initramfs will not provision"
        return 1
    fi
    require_binaries chroot useradd userdel usermod chpasswd visudo ssh-keygen
}

depends() {
    echo dracut-systemd network
}

installkernel() {
    # The drive, on either generation of VM, and the network.
    hostonly='' instmods sr_mod ata_piix hv_storvsc hv_netvsc af_packet
}

install() {
    # The standalone form's Python, for the libraries that it is linked to.
    inst_multiple -o /opt/minprov/bin/python3
    mkdir -p "${initdir:?}/opt"
    cp -a "${dracutsysrootdir-}/opt/minprov" "$initdir/opt"

    # Tools that work on a tree are this system's; sshd and busybox are the tree's own.
    inst_multiple chroot useradd userdel usermod chpasswd visudo ssh-keygen

    inst_simple "${moddir:?}/minprov-initramfs.service" "${systemdsystemunitdir:?}/minprov-initramfs.service"
    ${SYSTEMCTL:?} -q --root "$initdir" add-wants initrd.target minprov-initramfs.service

    if dracut_module_included systemd-networkd; then
        inst_simple "$moddir/99-minprov.network" /etc/systemd/network/99-minprov.network
    else
        # The other programs set up a network only where it is asked for here. Each later boot waits for it, too.
        mkdir -p "$initdir/etc/cmdline.d"
        echo 'rd.neednet=1 ip=dhcp' >"$initdir/etc/cmdline.d/50-minprov.conf"
    fi
}
