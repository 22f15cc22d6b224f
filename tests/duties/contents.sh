# The words in which contents.toml says what is on a disk. $D is its image; p, a partition's contents, is as large as one.
set -euo pipefail
BASIC=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
RESERVED=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
PART=90M
truncate -s "$PART" p q

# Partitions of the types given: those before the last have 16 MiB, and the last one what p needs.
table() {
    label=$1 start=1 script="label: $1"
    shift
    while [ $# -gt 0 ]; do
        size=16
        [ $# -gt 1 ] || size=90
        script+=$'\n'"start=${start}MiB, size=${size}MiB, type=$1"
        start=$((start + size))
        shift
    done
    sfdisk --quiet "$D" <<<"$script"
}
dos() { table dos "$@"; }
gpt() { table gpt "$@"; }

# Put a file at so many MiB of the disk.
put() { dd if="$2" of="$D" bs=1M seek="$1" conv=notrunc,sparse status=none; }
zero() { dd if=/dev/zero of="$D" bs=1M iflag=count_bytes oflag=seek_bytes seek="$1" count="$2" conv=notrunc status=none; }
bytes() { python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); f.write(bytes.fromhex(sys.argv[3]))' "$D" "$@"; }
mkswap_image() {
    truncate -s 8M s
    chmod 600 s
    mkswap -q s
    cat s
}

# The platform's volume at so many MiB, after a command in its root directory.
fresh() {
    mkntfs -q -Q -F -L 'Temporary Storage' p >/dev/null 2>&1
    if [ $# -gt 1 ]; then
        mkdir -p m
        ntfs-3g p m
        (cd m && eval "$2")
        umount m
    fi
    put "$1" p
}
