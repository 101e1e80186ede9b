/*
 * What the verifier knows of the results and effects of helpers, as far as it decides which paths it explores
 * (kernel/bpf/verifier.c `check_helper_call`, and the prototypes of the helpers). Numbers are those of enum bpf_func_id.
 */

/** Helpers whose result is a pointer or NULL, which the verifier tries both (RET_PTR_TO_…_OR_NULL). */
export const OR_NULL: ReadonlySet<number> = new Set([
  1, // map_lookup_elem
  84, // sk_lookup_tcp
  85, // sk_lookup_udp
  95, // sk_fullsock
  96, // tcp_sock
  98, // get_listener_sock
  99, // skc_lookup_tcp
  107, // sk_storage_get
  131, // ringbuf_reserve
  136, // skc_to_tcp6_sock
  137, // skc_to_tcp_sock
  138, // skc_to_tcp_timewait_sock
  139, // skc_to_tcp_request_sock
  140, // skc_to_udp6_sock
  145, // inode_storage_get
  153, // per_cpu_ptr
  156, // task_storage_get
  178, // skc_to_unix_sock
  194, // kptr_xchg
  195, // map_lookup_percpu_elem
  196, // skc_to_mptcp_sock
  203, // dynptr_data
  210, // cgrp_storage_get
])

/** Helpers whose result is a pointer that is never NULL. */
export const NEVER_NULL: ReadonlySet<number> = new Set([
  81, // get_local_storage
  154, // this_cpu_ptr
  158, // get_current_task_btf
  175, // task_pt_regs
])

/** Helpers whose result the verifier bounds, by the size of a buffer or the number of processors. */
export const BOUNDED: ReadonlySet<number> = new Set([
  8, // get_smp_processor_id
  45, // probe_read_str
  67, // get_stack
  114, // probe_read_user_str
  115, // probe_read_kernel_str
  141, // get_task_stack
])

/**
 * Helpers that fill a buffer: the register of its address and that of its size. Afterwards the verifier knows nothing of
 * its bytes.
 */
export const FILLS: ReadonlyMap<number, readonly [address: number, size: number]> = new Map([
  [4, [1, 2]], // probe_read
  [16, [1, 2]], // get_current_comm
  [26, [3, 4]], // skb_load_bytes
  [45, [1, 2]], // probe_read_str
  [68, [3, 4]], // skb_load_bytes_relative
  [112, [1, 2]], // probe_read_user
  [113, [1, 2]], // probe_read_kernel
  [114, [1, 2]], // probe_read_user_str
  [115, [1, 2]], // probe_read_kernel_str
  [148, [1, 2]], // copy_from_user
])

/** Helpers that only read what their arguments point to. */
export const READS: ReadonlySet<number> = new Set([
  1, // map_lookup_elem
  2, // map_update_elem
  3, // map_delete_elem
  6, // trace_printk
  12, // tail_call
  25, // perf_event_output
  87, // map_push_elem
  111, // skb_output
  121, // xdp_output
  130, // ringbuf_output
  132, // ringbuf_submit
  133, // ringbuf_discard
  177, // trace_vprintk
  195, // map_lookup_percpu_elem
])
