#!/bin/sh
# Make the root file system of a Debian image that minprov provisions: mmdebstrap.sh MINPROV.deb ROOT.tar [OPTION…]
set -eu
package=$(realpath "$1") output=$2
shift 2
# OPTIONs are mmdebstrap's own. --include=linux-image-cloud-amd64 adds a kernel, with which disk.sh makes a disk.
# The package brings Python and what else it depends on. Host keys are made anew in each VM.
exec mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends false' \
    --include=dbus,iproute2,kmod,libpam-systemd,openssh-server,python3-uvloop,sudo,systemd-sysv,udev \
    --hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount --include="$package" \
    --customize-hook='printf "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n" >"$1/etc/systemd/network/50-dhcp.network"' \
    --customize-hook='systemctl --root="$1" enable systemd-networkd.service' \
    --customize-hook='rm "$1"/etc/ssh/ssh_host_*' \
    "$@" bookworm "$output"
