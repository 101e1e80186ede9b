#!/bin/busybox sh
# Process 1 of the guest: fetches BTF where the kernel command line names a server (server=URL, which the kernel hands
# to us as a variable), runs the agent, and starts a process when the agent says that it is attached. What the console
# shows is `WHO: text`; the host compares what the shell and the agent say. Nothing waits by sleeping.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1 # the console is ours, but for a panic

say() { # WHO: each line of stdin, and the exit status that comes last
  while read -r line; do echo "$1: $line"; done
}

echo "shell: uname $(uname -r)"
[ -e /sys/kernel/btf/vmlinux ] && echo "shell: the kernel has BTF"

if [ -n "$server" ]; then
  for module in /lib/modules/*.ko; do insmod "$module"; done
  ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
  { btf-fetch --server "$server" >/tmp/btf; echo "exit $?"; } 2>&1 | say fetch
  echo "fetch: path $(cat /tmp/btf)"
  set -- --btf "$(cat /tmp/btf)"
fi

# starter and witness are one script that says what it is; each exec of it is an event.
{ agent --events 2 --seconds 30 "$@" /lib/exec.bpf.o; echo "exit $?"; } 2>&1 | while read -r line; do
  echo "agent: $line"
  case $line in attached*) starter witness ;; esac
done

reboot -f # QEMU runs with -no-reboot: it ends
