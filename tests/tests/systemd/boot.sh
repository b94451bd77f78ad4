#!/bin/sh
# Becomes the first process of a machine: makes its root out of the host's /usr and what the test wrote, and starts systemd.
# Runs in mount, PID, IPC, UTS and cgroup namespaces of its own; what it mounts ends with them.
# $1: a folder with `etc` and `usr`, which lie over the host's. $2: the gateway, which becomes /usr/bin/portcullis.
set -eu
program=$2
cd "$1"
mkdir root
mount -t tmpfs -o mode=0755 machine root
cd root

mkdir upper work usr
cp -a ../usr/. upper/
: > upper/bin/portcullis
mount -t overlay -o "lowerdir=/usr,upperdir=$PWD/upper,workdir=$PWD/work" overlay usr
mount --bind "$program" usr/bin/portcullis
for folder in bin sbin lib lib64; do
    [ ! -e "usr/$folder" ] || ln -s "usr/$folder" "$folder"
done

mkdir etc
cp -a ../etc/. etc/
cp /etc/ld.so.cache etc/
mkdir -p proc sys run tmp dev root var/tmp old
chmod 1777 var/tmp

mount -t proc proc proc
# What is not of this network namespace is the host's: nobody in here shall change it.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# As systemd mounts it: for root alone.
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp

mount -t tmpfs -o mode=0755 dev dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

pivot_root . old
umount -l old
# Without this, `LoadCredential` gives empty folders.
mount --make-rshared /
exec env -i container=portcullis-test PATH=/usr/sbin:/usr/bin \
    /lib/systemd/systemd --log-target=console --show-status=no --unit=multi-user.target
