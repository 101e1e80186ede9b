#!/bin/busybox sh
# Process 1 of the guest: runs the programs without the installed BTF, then with it.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
dmesg -n 1
echo "uname $(uname -r)"
[ ! -e /sys/kernel/btf/vmlinux ] || echo 'the kernel has BTF'
try() { "$@" 2>&1 | sed "s/^/[$run ${1##*/}] /"; }
mv /lib/modules /lib/away
run=without
try libbpf /lib/exec.bpf.o
try cilium /lib/exec.bpf.o
mv /lib/away /lib/modules
run=with
try libbpf /lib/exec.bpf.o
try cilium /lib/exec.bpf.o
reboot -f
