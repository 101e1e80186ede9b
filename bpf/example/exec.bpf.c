// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// Reports every successful execve(): pid, parent's pid and command name.
//
// A CO-RE program for kernels from 4.17 on, with or without BTF of their own, 64 or 32 bit, of either byte order:
// a raw tracepoint (fentry would need the kernel's own BTF), a perf buffer (ring buffers came in 5.8), and hand-written
// types instead of a vmlinux.h: only the members used, which libbpf finds by name in the BTF of the running kernel.
//
//   clang -g -O2 -target bpf -I/usr/include/$(uname -m)-linux-gnu -c exec.bpf.c -o exec.bpf.o
//
// For another byte order than this machine's: -target bpfel or bpfeb.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "exec.h"

struct task_struct {
	int tgid;
	struct task_struct *real_parent;
	char comm[16];
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

// BPF's pointers have 8 bytes, those of a 32-bit kernel 4. BPF_CORE_READ would read 8 there, and so the next member with
// them; this reads as many as the kernel has, to the start of a zeroed u64. A big-endian machine has the low end of an
// integer at its end: hence the shift. (The verifier forbids the other way, a pointer to the last bytes of the u64.)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FIRST_BYTES(value, size) ((value) >> 8 * (sizeof(value) - (size)))
#else
#define FIRST_BYTES(value, size) (value)
#endif

#define READ_POINTER(object, member)                                         \
	({                                                                   \
		__u64 value = 0;                                             \
		const __u32 size = bpf_core_field_size((object)->member);    \
		bpf_core_read(&value, size, &(object)->member);              \
		(typeof((object)->member))FIRST_BYTES(value, size);          \
	})

SEC("raw_tp/sched_process_exec")
int BPF_PROG(report_exec, struct task_struct *task)
{
	struct task_struct *parent = READ_POINTER(task, real_parent);
	struct exec_event event = {};

	event.pid = BPF_CORE_READ(task, tgid);
	event.parent = BPF_CORE_READ(parent, tgid);
	BPF_CORE_READ_STR_INTO(&event.comm, task, comm);
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return 0;
}

// The kernel lets only programs under the GPL (here: by choice) call bpf_probe_read_kernel and bpf_perf_event_output.
char LICENSE[] SEC("license") = "GPL";
