/*
 * The headers that are tried, as data. Each row is of a subsystem; `needs` is the option that builds it into the kernel
 * image. Without it the image lacks its types, and a header would say that there are some. Rows that go together are one
 * unit, a C file: trace events are created by the first inclusion of their header, so they are apart from the others.
 */
import { createHash } from 'node:crypto'

export interface HeaderRow {
  /** an option without `CONFIG_`; the row counts only if it is `y` */
  needs?: string
  headers: readonly string[]
}

const words = (text: string): string[] => text.trim().split(/\s+/)

/** What is compiled together: one C file. */
export interface HeaderUnit {
  /** headers that must come first, if the tree has them, since those of the rows use what they declare */
  before?: readonly string[]
  /** the first inclusion of its headers defines trace events */
  trace?: true
  rows: readonly HeaderRow[]
}

/** Trace events; each name stands for `trace/events/NAME.h`. */
const events = (text: string): string[] => words(text).map((name) => `trace/events/${name}.h`)

const HEADERS: readonly HeaderRow[] = [
  {
    headers:
      words(`linux/sched.h linux/sched/signal.h linux/sched/task.h linux/fs.h linux/fs_struct.h
      linux/fdtable.h linux/mm.h linux/mm_types.h linux/mount.h linux/nsproxy.h linux/pid_namespace.h
      linux/user_namespace.h linux/utsname.h linux/ipc_namespace.h linux/cgroup.h linux/cgroup-defs.h
      linux/cred.h linux/binfmts.h linux/kprobes.h linux/ftrace.h linux/trace_events.h linux/tracepoint.h
      linux/perf_event.h linux/module.h linux/interrupt.h linux/workqueue.h linux/timer.h linux/hrtimer.h
      linux/security.h linux/lsm_hooks.h linux/tty.h linux/pipe_fs_i.h linux/eventpoll.h linux/vmstat.h
      linux/mmzone.h linux/oom.h linux/backing-dev.h linux/writeback.h linux/pagemap.h linux/swap.h
      linux/namei.h linux/dcache.h linux/path.h linux/xattr.h linux/key.h linux/keyctl.h linux/seccomp.h
      linux/ptrace.h linux/uio.h linux/cpufreq.h linux/memcontrol.h linux/psi_types.h linux/rcupdate.h
      linux/seq_file.h linux/proc_fs.h linux/kernfs.h linux/device.h linux/of.h linux/io_uring_types.h
      linux/socket.h linux/net.h linux/un.h linux/in.h linux/icmp.h linux/ip.h
      linux/sched/mm.h linux/sched/cputime.h linux/sched/rt.h linux/sched/deadline.h
      linux/sched/topology.h linux/sched/user.h linux/sched/autogroup.h linux/sched/task_stack.h
      linux/posix-timers.h linux/futex.h linux/delayacct.h linux/taskstats_kern.h linux/tick.h
      linux/audit.h linux/lsm_audit.h linux/console.h linux/debugfs.h linux/fs_context.h
      linux/fs_parser.h linux/filelock.h linux/fsnotify_backend.h linux/exportfs.h linux/quota.h
      linux/posix_acl.h linux/eventfd.h linux/msg.h linux/sem.h linux/shm.h linux/mempolicy.h
      linux/rmap.h linux/hugetlb.h linux/shmem_fs.h linux/userfaultfd_k.h linux/khugepaged.h
      linux/compaction.h linux/vmalloc.h linux/slab.h linux/pagevec.h linux/iomap.h linux/irq.h
      linux/irqdomain.h linux/msi.h linux/input.h linux/cpuidle.h linux/suspend.h linux/kexec.h
      linux/livepatch.h linux/crypto.h linux/pstore.h linux/genalloc.h linux/stop_machine.h
      linux/cpu.h linux/smpboot.h linux/random.h linux/reboot.h linux/notifier.h linux/resource.h
      linux/platform_device.h linux/regmap.h linux/clk-provider.h linux/dmaengine.h linux/iommu.h
      linux/dma-map-ops.h linux/serial_core.h linux/tty_driver.h linux/thermal.h linux/hwmon.h
      crypto/hash.h crypto/skcipher.h crypto/aead.h crypto/akcipher.h crypto/internal/hash.h
      asm/ptrace.h asm/syscall.h asm/processor.h`),
  },
  { needs: 'EFI', headers: ['linux/efi.h'] },
  { needs: 'FB', headers: ['linux/fb.h'] },
  { needs: 'LEDS_CLASS', headers: ['linux/leds.h'] },
  { needs: 'POWER_SUPPLY', headers: ['linux/power_supply.h'] },
  { needs: 'TCG_TPM', headers: ['linux/tpm.h'] },
  { needs: 'DAMON', headers: ['linux/damon.h'] },
  { needs: 'VIRTIO', headers: words('linux/virtio.h linux/virtio_config.h') },
  { needs: 'PHYLIB', headers: ['linux/phy.h'] },
  { needs: 'FUSE_FS', headers: ['uapi/linux/fuse.h'] },
  { needs: 'BLK_DEV_NVME', headers: ['linux/nvme.h'] },
  { needs: 'HYPERV', headers: ['linux/hyperv.h'] },
  { needs: 'BPF', headers: ['linux/filter.h'] },
  {
    needs: 'BPF_SYSCALL',
    headers: words(`linux/bpf.h linux/bpf_verifier.h linux/btf.h linux/bpf_local_storage.h
      linux/bpf_mprog.h linux/bpf-cgroup.h linux/bpf_lsm.h linux/skmsg.h`),
  },
  {
    needs: 'BLOCK',
    headers: words(`linux/blkdev.h linux/blk-mq.h linux/bio.h linux/iocontext.h linux/blktrace_api.h
      linux/part_stat.h linux/blk-crypto.h`),
  },
  {
    needs: 'NET',
    headers:
      words(`linux/skbuff.h linux/netdevice.h net/sock.h net/request_sock.h net/net_namespace.h
      net/neighbour.h net/dst.h net/netlink.h net/genetlink.h net/sch_generic.h net/pkt_cls.h net/xdp.h
      linux/netfilter.h linux/ethtool.h net/devlink.h linux/rtnetlink.h linux/if_vlan.h net/flow_dissector.h
      net/flow_offload.h net/fib_rules.h net/fib_notifier.h net/gro.h net/busy_poll.h net/scm.h net/rps.h
      net/page_pool/helpers.h net/page_pool.h net/lwtunnel.h net/dst_metadata.h net/cls_cgroup.h
      net/act_api.h linux/sock_diag.h linux/ptp_clock_kernel.h`),
  },
  {
    needs: 'INET',
    headers: words(`linux/tcp.h linux/udp.h net/tcp.h net/udp.h net/inet_sock.h
      net/inet_connection_sock.h net/ip.h net/ip_fib.h net/inet_hashtables.h net/inet_timewait_sock.h
      net/inet_frag.h net/nexthop.h net/protocol.h net/raw.h net/ping.h net/icmp.h net/arp.h net/route.h
      net/ip_tunnels.h linux/inetdevice.h linux/igmp.h linux/inet_diag.h linux/mroute_base.h`),
  },
  {
    needs: 'IPV6',
    headers: words(
      'linux/ipv6.h net/ipv6.h net/ip6_fib.h net/ip6_route.h net/ndisc.h net/mld.h net/seg6.h',
    ),
  },
  { needs: 'MPTCP', headers: ['net/mptcp.h'] },
  { needs: 'NETLABEL', headers: ['net/netlabel.h'] },
  { needs: 'UNIX', headers: ['net/af_unix.h'] },
  { needs: 'XFRM', headers: ['net/xfrm.h'] },
  { needs: 'XDP_SOCKETS', headers: ['net/xdp_sock.h'] },
  { needs: 'STREAM_PARSER', headers: ['net/strparser.h'] },
  { needs: 'PCI', headers: ['linux/pci.h'] },
  { needs: 'ACPI', headers: ['linux/acpi.h'] },
  { needs: 'USB', headers: ['linux/usb.h'] },
  { needs: 'KVM', headers: ['linux/kvm_host.h'] },
  { needs: 'NF_CONNTRACK', headers: ['net/netfilter/nf_conntrack.h'] },
  { needs: 'VSOCKETS', headers: ['net/af_vsock.h'] },
  { needs: 'NFS_FS', headers: ['linux/nfs_fs.h'] },
  { needs: 'BT', headers: ['net/bluetooth/bluetooth.h'] },
  { needs: 'CFG80211', headers: ['net/cfg80211.h'] },
  { needs: 'MAC80211', headers: ['net/mac80211.h'] },
  { needs: 'TLS', headers: ['net/tls.h'] },
  { needs: 'VXLAN', headers: ['net/vxlan.h'] },
]

/** All units. The first has the types that a kernel must have; the others add to it. */
export const UNITS: readonly HeaderUnit[] = [
  { rows: HEADERS },
  // its names for page frames are those of KVM on arm64
  {
    before: words('linux/types.h linux/mm.h'),
    rows: [
      {
        needs: 'XEN',
        headers: words(`xen/interface/xen.h xen/interface/vcpu.h xen/interface/platform.h
      xen/interface/event_channel.h xen/interface/memory.h xen/interface/physdev.h
      xen/interface/grant_table.h xen/grant_table.h`),
      },
    ],
  },
  {
    trace: true,
    before: words('linux/interrupt.h linux/tick.h linux/mm.h linux/blkdev.h linux/cgroup.h'),
    rows: [
      {
        headers: events('sched signal task irq timer power percpu rcu printk cpuhp'),
      },
      { needs: 'BLOCK', headers: events('block') },
      { needs: 'MODULES', headers: events('module') },
      { needs: 'CGROUPS', headers: events('cgroup') },
      { needs: 'PM', headers: events('rpm') },
      { needs: 'SMP', headers: events('ipi') },
      { needs: 'IO_URING', headers: events('io_uring') },
      // the last: it leaves its macros defined
      { headers: events('syscalls') },
    ],
  },
  {
    trace: true,
    before: words('linux/skbuff.h linux/netdevice.h net/sock.h net/tcp.h'),
    rows: [
      { needs: 'NET', headers: events('sock skb net napi neigh qdisc') },
      { needs: 'INET', headers: events('tcp udp fib') },
      { needs: 'BPF_SYSCALL', headers: events('xdp') },
      { needs: 'PAGE_POOL', headers: events('page_pool') },
    ],
  },
  {
    trace: true,
    before: words('linux/mm.h linux/swap.h linux/migrate.h'),
    rows: [
      { headers: events('filemap mmap mmap_lock tlb oom') },
      { needs: 'MIGRATION', headers: events('migrate') },
    ],
  },
  {
    trace: true,
    before: words('linux/mm.h linux/swap.h'),
    rows: [{ headers: events('vmscan') }],
  },
]

/** The SHA-256 of the list, in hex: it changes whenever other headers are tried. */
export const LIST_DIGEST = createHash('sha256').update(JSON.stringify(UNITS)).digest('hex')

/** All headers of a unit; with `isBuiltIn`, those that a kernel with these options has. */
export function headersOf(unit: HeaderUnit, isBuiltIn?: (option: string) => boolean): string[] {
  return unit.rows
    .filter(({ needs }) => needs === undefined || !isBuiltIn || isBuiltIn(needs))
    .flatMap(({ headers }) => headers)
}
