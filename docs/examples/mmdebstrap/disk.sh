#!/bin/sh
# Make a disk that a VM of generation 2 starts from such a root file system with a kernel in it: disk.sh ROOT.tar DISK
set -eu
tree=$(realpath "$1") disk=$2
work=$(mktemp --directory --tmpdir="${TMPDIR:-/var/tmp}")
trap 'rm -rf "$work"' EXIT
root=$work/root loader=$work/BOOTX64.EFI

mkdir "$root"
tar --extract --numeric-owner --xattrs --xattrs-include='*' --file "$tree" --directory "$root"
echo 'LABEL=root / ext4 defaults 0 1' >"$root/etc/fstab"
mkdir --parents "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<END
linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0
initrd /initrd.img
boot
END
# A new VM has no boot entries, so its firmware starts what has this name on the EFI system partition.
printf 'search --set=root --label root\nconfigfile /boot/grub/grub.cfg\n' >"$work/start.cfg"
grub-mkimage -O x86_64-efi -p /boot/grub -c "$work/start.cfg" -o "$loader" \
    configfile ext2 linux normal part_gpt search search_label
truncate --size=64M "$work/esp"
/sbin/mkfs.fat "$work/esp" >/dev/null
mmd -i "$work/esp" ::EFI ::EFI/BOOT
mcopy -i "$work/esp" "$loader" ::EFI/BOOT/BOOTX64.EFI
# Written without being mounted: no loop device is needed.
/sbin/mke2fs -q -t ext4 -L root -d "$root" "$work/system" 2G >/dev/null

truncate --size=2120M "$disk"
printf 'label: gpt\nstart=1MiB, size=64MiB, type=uefi\nstart=65MiB, size=2GiB, type=linux\n' | /sbin/sfdisk --quiet "$disk"
dd if="$work/esp" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/system" of="$disk" bs=1M seek=65 conv=notrunc,sparse status=none
