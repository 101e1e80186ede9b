#!/bin/busybox sh
# Process 1 of the guest: runs the agent again and again, each time with less or more to find types with, and starts
# processes when the agent says that it is attached. The server's address is in the kernel's command line
# (server=URL, which the kernel hands to us as a variable), and whether only runs without types or only those with are
# wanted (types=none, types=some). What the console shows is `[RUN] text`; the host compares what the shell and the agent
# say. Nothing waits by sleeping.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1 # the console is ours, but for a panic
. /bin/start.sh
export run

echo "uname $(uname -r)"
[ -e /sys/kernel/btf/vmlinux ] && echo 'the kernel has BTF'
taskset -p 2 $$ >/dev/null # all runs on the second CPU, so that its number says something
for module in /lib/modules/*.ko; do insmod "$module"; done

network() { ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; }

# One run of the agent. starter and witness are one script that says what it is; each exec of it is an event.
run_agent() { # NAME PROGRAM OPTION…
  run=$1 program=$2
  shift 2
  { "$program" --events 2 --seconds 30 "$@" /lib/exec.bpf.o; echo "exit $?"; } 2>&1 | while read -r line; do
    echo "[$run] $line"
    case $line in
      *'agent: attached') start starter witness ;;
      *'trying again') [ "$run" != late ] || network ;;
    esac
  done
}

# There is no network yet.
[ "$types" = some ] || run_agent none agent --from kernel,cache,service
[ "$types" != none ] || reboot -f # QEMU runs with -no-reboot: it ends
run_agent object agent --from kernel,cache,service,object
run_agent bundle agent
# Now it comes, but only after btf-fetch has asked in vain.
run_agent late agent --from kernel,cache,service --server "$server"
run_agent cache agent
run_agent service agent --from kernel,cache,service,object --server "$server" --cache /tmp/other

if [ -x /bin/agent-go ]; then
  . /etc/os-release
  wget -q -O /tmp/go.btf "$server/v1/btf/$ID/$VERSION_ID/$(uname -m)/$(uname -r)?dialect=libbpf-0.5"
  run_agent go agent-go --btf /tmp/go.btf
fi

reboot -f
