#!/bin/busybox sh
# Process 1 of the guest. It runs the agent several times, each time with other sources of BTF, and starts processes when
# the agent reports that it is attached. The kernel passes its command line on as variables: server=URL is the server's
# address; types=none and types=some select the runs without or with BTF. The console shows `[RUN] text`; the host compares
# the lines of shell and agent. Nothing waits by sleeping.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1 # keep the kernel's messages off the console, except a panic
. /bin/start.sh
export run

echo "uname $(uname -r)"
[ -e /sys/kernel/btf/vmlinux ] && echo 'the kernel has BTF'
taskset -p 2 $$ >/dev/null # run everything on the second CPU, so that its number is not the default 0
for module in /lib/modules/*.ko; do insmod "$module"; done

network() { ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; }

# Runs the agent once. starter and witness are one script that describes itself; each exec of it is an event.
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

# The network is still down.
[ "$types" = some ] || run_agent none agent --from kernel,cache,service
[ "$types" != none ] || reboot -f # QEMU runs with -no-reboot, so it ends
run_agent object agent --from kernel,cache,service,object
run_agent bundle agent
# The network comes up after the first request of btf-fetch has failed.
run_agent late agent --from kernel,cache,service --server "$server"
run_agent cache agent
run_agent service agent --from kernel,cache,service,object --server "$server" --cache /tmp/other

if [ -x /bin/agent-go ]; then
  . /etc/os-release
  wget -q -O /tmp/go.btf "$server/v1/btf/$ID/$VERSION_ID/$(uname -m)/$(uname -r)?dialect=libbpf-0.5"
  run_agent go agent-go --btf /tmp/go.btf
fi

reboot -f
