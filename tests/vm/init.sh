#!/bin/busybox sh
# The first program of a guest: loads the modules, makes a root of the host's (read-only, with what is written going to
# memory), mounts what is shared, runs guest.sh in it and turns the machine off. What to do is in /lab/config.
b=/bin/busybox
$b mount -t devtmpfs d /dev
$b mount -t proc p /proc
$b mount -t sysfs s /sys
echo "lab: the kernel is up" >/dev/console
while read -r module; do
    $b insmod "/modules/$module" || echo "lab: cannot load $module"
done </order

options=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o "$options,cache=none" lab /lab || exec $b reboot -f
. /lab/config
$b mount -t 9p -o "ro,$options,cache=loose" host /lower || exec $b reboot -f
$b mount -t tmpfs t /over
$b mkdir /over/upper /over/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work o /root || exec $b reboot -f
for folder in tmp run dev proc sys; do
    $b mkdir -p "/root/$folder"
done
$b mount -t tmpfs -o mode=1777 t /root/tmp
$b mount -t tmpfs t /root/run
for folder in dev proc sys; do
    $b mount --move "/$folder" "/root/$folder"
done
$b mkdir -p /root/dev/pts /root/dev/shm
$b mount -t devpts p /root/dev/pts
$b mount -t tmpfs -o mode=1777 t /root/dev/shm

$b mkdir -p "/root$lab_source" /root/run/lab
if [ ! -e "/root$lab_source/tests/vm/guest.sh" ]; then # it lies where the guest has a file system of its own
    $b mount --bind "/lower$lab_source" "/root$lab_source"
fi
n=0
for share in $lab_shares; do
    folder=$($b cat "/lab/share$n")
    $b mkdir -p "/root$folder"
    $b mount -t 9p -o "$options,cache=mmap" "$share" "/root$folder" || exec $b reboot -f
    n=$((n + 1))
done
$b mount --move /lab /root/run/lab
$b chroot /root /bin/bash "$lab_source/tests/vm/guest.sh"
$b sync
$b reboot -f
