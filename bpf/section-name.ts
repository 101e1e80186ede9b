/*
 * What the section of a program says of it: its type, how it is attached, and to what (libbpf src/libbpf.c
 * `section_defs`, `sec_def_matches`).
 */

/** Name, program type without BPF_PROG_TYPE_, attach type. A name with + also matches NAME/TARGET. */
type Row = readonly [name: string, programType: string, attachType?: string]

// biome-ignore format: a table
const ROWS: readonly Row[] = [
  ['socket', 'SOCKET_FILTER'],
  ['sk_reuseport/migrate', 'SK_REUSEPORT', 'BPF_SK_REUSEPORT_SELECT_OR_MIGRATE'],
  ['sk_reuseport', 'SK_REUSEPORT', 'BPF_SK_REUSEPORT_SELECT'],
  ['kprobe+', 'KPROBE'],
  ['uprobe+', 'KPROBE'],
  ['uprobe.s+', 'KPROBE'],
  ['kretprobe+', 'KPROBE'],
  ['uretprobe+', 'KPROBE'],
  ['uretprobe.s+', 'KPROBE'],
  ['kprobe.multi+', 'KPROBE', 'BPF_TRACE_KPROBE_MULTI'],
  ['kretprobe.multi+', 'KPROBE', 'BPF_TRACE_KPROBE_MULTI'],
  ['kprobe.session+', 'KPROBE', 'BPF_TRACE_KPROBE_SESSION'],
  ['uprobe.multi+', 'KPROBE', 'BPF_TRACE_UPROBE_MULTI'],
  ['uretprobe.multi+', 'KPROBE', 'BPF_TRACE_UPROBE_MULTI'],
  ['uprobe.session+', 'KPROBE', 'BPF_TRACE_UPROBE_SESSION'],
  ['uprobe.multi.s+', 'KPROBE', 'BPF_TRACE_UPROBE_MULTI'],
  ['uretprobe.multi.s+', 'KPROBE', 'BPF_TRACE_UPROBE_MULTI'],
  ['uprobe.session.s+', 'KPROBE', 'BPF_TRACE_UPROBE_SESSION'],
  ['ksyscall+', 'KPROBE'],
  ['kretsyscall+', 'KPROBE'],
  ['usdt+', 'KPROBE'],
  ['usdt.s+', 'KPROBE'],
  ['tc/ingress', 'SCHED_CLS', 'BPF_TCX_INGRESS'],
  ['tc/egress', 'SCHED_CLS', 'BPF_TCX_EGRESS'],
  ['tcx/ingress', 'SCHED_CLS', 'BPF_TCX_INGRESS'],
  ['tcx/egress', 'SCHED_CLS', 'BPF_TCX_EGRESS'],
  ['tc', 'SCHED_CLS'],
  ['classifier', 'SCHED_CLS'],
  ['action', 'SCHED_ACT'],
  ['netkit/primary', 'SCHED_CLS', 'BPF_NETKIT_PRIMARY'],
  ['netkit/peer', 'SCHED_CLS', 'BPF_NETKIT_PEER'],
  ['tracepoint+', 'TRACEPOINT'],
  ['tp+', 'TRACEPOINT'],
  ['tracepoint.s+', 'TRACEPOINT'],
  ['tp.s+', 'TRACEPOINT'],
  ['raw_tracepoint+', 'RAW_TRACEPOINT'],
  ['raw_tp+', 'RAW_TRACEPOINT'],
  ['raw_tracepoint.s+', 'RAW_TRACEPOINT'],
  ['raw_tp.s+', 'RAW_TRACEPOINT'],
  ['raw_tracepoint.w+', 'RAW_TRACEPOINT_WRITABLE'],
  ['raw_tp.w+', 'RAW_TRACEPOINT_WRITABLE'],
  ['tp_btf+', 'TRACING', 'BPF_TRACE_RAW_TP'],
  ['tp_btf.s+', 'TRACING', 'BPF_TRACE_RAW_TP'],
  ['fentry+', 'TRACING', 'BPF_TRACE_FENTRY'],
  ['fmod_ret+', 'TRACING', 'BPF_MODIFY_RETURN'],
  ['fexit+', 'TRACING', 'BPF_TRACE_FEXIT'],
  ['fentry.s+', 'TRACING', 'BPF_TRACE_FENTRY'],
  ['fmod_ret.s+', 'TRACING', 'BPF_MODIFY_RETURN'],
  ['fexit.s+', 'TRACING', 'BPF_TRACE_FEXIT'],
  ['fsession+', 'TRACING', 'BPF_TRACE_FSESSION'],
  ['fsession.s+', 'TRACING', 'BPF_TRACE_FSESSION'],
  ['fsession.multi+', 'TRACING', 'BPF_TRACE_FSESSION_MULTI'],
  ['fsession.multi.s+', 'TRACING', 'BPF_TRACE_FSESSION_MULTI'],
  ['fentry.multi+', 'TRACING', 'BPF_TRACE_FENTRY_MULTI'],
  ['fexit.multi+', 'TRACING', 'BPF_TRACE_FEXIT_MULTI'],
  ['fentry.multi.s+', 'TRACING', 'BPF_TRACE_FENTRY_MULTI'],
  ['fexit.multi.s+', 'TRACING', 'BPF_TRACE_FEXIT_MULTI'],
  ['freplace+', 'EXT'],
  ['lsm+', 'LSM', 'BPF_LSM_MAC'],
  ['lsm.s+', 'LSM', 'BPF_LSM_MAC'],
  ['lsm_cgroup+', 'LSM', 'BPF_LSM_CGROUP'],
  ['iter+', 'TRACING', 'BPF_TRACE_ITER'],
  ['iter.s+', 'TRACING', 'BPF_TRACE_ITER'],
  ['syscall', 'SYSCALL'],
  ['xdp.frags/devmap', 'XDP', 'BPF_XDP_DEVMAP'],
  ['xdp/devmap', 'XDP', 'BPF_XDP_DEVMAP'],
  ['xdp.frags/cpumap', 'XDP', 'BPF_XDP_CPUMAP'],
  ['xdp/cpumap', 'XDP', 'BPF_XDP_CPUMAP'],
  ['xdp.frags', 'XDP', 'BPF_XDP'],
  ['xdp', 'XDP', 'BPF_XDP'],
  ['perf_event', 'PERF_EVENT'],
  ['lwt_in', 'LWT_IN'],
  ['lwt_out', 'LWT_OUT'],
  ['lwt_xmit', 'LWT_XMIT'],
  ['lwt_seg6local', 'LWT_SEG6LOCAL'],
  ['sockops', 'SOCK_OPS', 'BPF_CGROUP_SOCK_OPS'],
  ['sk_skb/stream_parser', 'SK_SKB', 'BPF_SK_SKB_STREAM_PARSER'],
  ['sk_skb/stream_verdict', 'SK_SKB', 'BPF_SK_SKB_STREAM_VERDICT'],
  ['sk_skb/verdict', 'SK_SKB', 'BPF_SK_SKB_VERDICT'],
  ['sk_skb', 'SK_SKB'],
  ['sk_msg', 'SK_MSG', 'BPF_SK_MSG_VERDICT'],
  ['lirc_mode2', 'LIRC_MODE2', 'BPF_LIRC_MODE2'],
  ['flow_dissector', 'FLOW_DISSECTOR', 'BPF_FLOW_DISSECTOR'],
  ['cgroup_skb/ingress', 'CGROUP_SKB', 'BPF_CGROUP_INET_INGRESS'],
  ['cgroup_skb/egress', 'CGROUP_SKB', 'BPF_CGROUP_INET_EGRESS'],
  ['cgroup/skb', 'CGROUP_SKB'],
  ['cgroup/sock_create', 'CGROUP_SOCK', 'BPF_CGROUP_INET_SOCK_CREATE'],
  ['cgroup/sock_release', 'CGROUP_SOCK', 'BPF_CGROUP_INET_SOCK_RELEASE'],
  ['cgroup/sock', 'CGROUP_SOCK', 'BPF_CGROUP_INET_SOCK_CREATE'],
  ['cgroup/post_bind4', 'CGROUP_SOCK', 'BPF_CGROUP_INET4_POST_BIND'],
  ['cgroup/post_bind6', 'CGROUP_SOCK', 'BPF_CGROUP_INET6_POST_BIND'],
  ['cgroup/bind4', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET4_BIND'],
  ['cgroup/bind6', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET6_BIND'],
  ['cgroup/connect4', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET4_CONNECT'],
  ['cgroup/connect6', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET6_CONNECT'],
  ['cgroup/connect_unix', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UNIX_CONNECT'],
  ['cgroup/sendmsg4', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UDP4_SENDMSG'],
  ['cgroup/sendmsg6', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UDP6_SENDMSG'],
  ['cgroup/sendmsg_unix', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UNIX_SENDMSG'],
  ['cgroup/recvmsg4', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UDP4_RECVMSG'],
  ['cgroup/recvmsg6', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UDP6_RECVMSG'],
  ['cgroup/recvmsg_unix', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UNIX_RECVMSG'],
  ['cgroup/getpeername4', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET4_GETPEERNAME'],
  ['cgroup/getpeername6', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET6_GETPEERNAME'],
  ['cgroup/getpeername_unix', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UNIX_GETPEERNAME'],
  ['cgroup/getsockname4', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET4_GETSOCKNAME'],
  ['cgroup/getsockname6', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_INET6_GETSOCKNAME'],
  ['cgroup/getsockname_unix', 'CGROUP_SOCK_ADDR', 'BPF_CGROUP_UNIX_GETSOCKNAME'],
  ['cgroup/sysctl', 'CGROUP_SYSCTL', 'BPF_CGROUP_SYSCTL'],
  ['cgroup/getsockopt', 'CGROUP_SOCKOPT', 'BPF_CGROUP_GETSOCKOPT'],
  ['cgroup/setsockopt', 'CGROUP_SOCKOPT', 'BPF_CGROUP_SETSOCKOPT'],
  ['cgroup/dev', 'CGROUP_DEVICE', 'BPF_CGROUP_DEVICE'],
  ['struct_ops+', 'STRUCT_OPS'],
  ['struct_ops.s+', 'STRUCT_OPS'],
  ['sk_lookup', 'SK_LOOKUP', 'BPF_SK_LOOKUP'],
  ['netfilter', 'NETFILTER', 'BPF_NETFILTER'],
]

/** A program's section, read as libbpf reads it. */
export interface SectionName {
  /** the part before the target, without `?`: `fentry`, `kprobe`, `tc/ingress` */
  readonly kind: string
  /** an enumerator of bpf_prog_type */
  readonly programType: string
  /** an enumerator of bpf_attach_type, for programs that are loaded for one */
  readonly attachType?: string
  /** the function, hook, tracepoint or struct that the program is attached to, where the section names one */
  readonly target?: string
  /** libbpf loads the program only if it is asked to */
  readonly optional: boolean
}

/** Reads the name of a program's section; undefined for one that libbpf does not know. */
export function parseSectionName(section: string): SectionName | undefined {
  const optional = section.startsWith('?')
  const name = optional ? section.slice(1) : section
  for (const [pattern, type, attachType] of ROWS) {
    const kind = pattern.replace('+', '')
    const open = pattern.endsWith('+') && name.startsWith(`${kind}/`)
    if (name !== kind && !open) continue
    return {
      kind,
      programType: `BPF_PROG_TYPE_${type}`,
      ...(attachType && { attachType }),
      ...(open && { target: name.slice(kind.length + 1) }),
      optional,
    }
  }
  return undefined
}
