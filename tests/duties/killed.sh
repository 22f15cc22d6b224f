# Kill the program, and all that it started, at the n-th of its effects, or one of its tools at the tool's own n-th; then
# run again, after a reboot where n is even. In a mount namespace of its own.
# usage: killed.sh N CONFIG DEVICE MOUNT_POINT PROGRAM...
set -eu
n=$1 config=$2 device=$3 mounted=$4
shift 4
effects=pwrite64,fsync,fdatasync,rename,unlink,mkdir,mount,swapon,swapoff,fallocate,execve
at=signal=KILL:when=$n
strace -f -qq -o /dev/null -e "trace=$effects" -e "inject=$effects:$at" \
    unshare --pid --fork --kill-child "$@" resource-disk --config "$config" >/dev/null 2>&1 && echo met none
if [ $((n % 2)) = 0 ]; then
    ! grep -q "^$mounted/" /proc/swaps || swapoff "$mounted/swapfile"
    ! mountpoint -q "$mounted" || umount "$mounted"
fi
status=0
"$@" resource-disk --config "$config" || status=$?
mountpoint "$mounted"
grep -c "^$mounted/swapfile" /proc/swaps || status=99
swapoff "$mounted/swapfile" || true
umount "$mounted" || true
exit "$status"
