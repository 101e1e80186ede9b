// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// Reports every successful execve(): its pid and command name, and the pid, state and CPU of its parent.
//
// A CO-RE program for kernels since 4.17, with or without their own BTF, 64 or 32 bit, in both byte orders. It uses a raw
// tracepoint (fentry needs the kernel's own BTF), a perf buffer (ring buffers came in 5.8), and hand-written types instead
// of a vmlinux.h: only the members it reads, which libbpf finds by name in the BTF of the running kernel.
//
//   clang -g -O2 -target bpf -I/usr/include/$(uname -m)-linux-gnu -c exec.bpf.c -o exec.bpf.o
//
// For the other byte order: -target bpfel or bpfeb. With -DLAYOUT='"FILE"' it is not a CO-RE program but one for a single
// kernel, whose layout the file has (see the script `layout`): it needs no BTF at all.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "exec.h"

#ifdef LAYOUT
#include LAYOUT
struct task_struct;

#define OFFSET(type, member) type##__##member##__offset
#define SIZE(type, member) type##__##member##__size
#define EXISTS(type, member) (SIZE(type, member) > 0)

#else
struct thread_info {
	__u32 cpu; // since 5.16, on machines whose thread_info is in the task_struct
} __attribute__((preserve_access_index));

struct task_struct {
	unsigned int __state; // since 5.14
	int tgid;
	struct task_struct *real_parent;
	char comm[16];
	struct thread_info thread_info;
} __attribute__((preserve_access_index));

// The same struct in older kernels: libbpf ignores ___ and the rest of the name when it looks for the kernel's type.
struct task_struct___before {
	long state;       // up to 5.13
	unsigned int cpu; // up to 5.15
} __attribute__((preserve_access_index));

// Offset and size in bytes, and existence of a member: libbpf writes the running kernel's values into the program.
#define FIELD(type, member, what) __builtin_preserve_field_info(((struct type *)0)->member, what)
#define OFFSET(type, member) FIELD(type, member, BPF_FIELD_BYTE_OFFSET)
#define SIZE(type, member) FIELD(type, member, BPF_FIELD_BYTE_SIZE)
#define EXISTS(type, member) FIELD(type, member, BPF_FIELD_EXISTS) // like bpf_core_field_exists()
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

// Reads a member with the kernel's width. BPF's long and pointers have 8 bytes, those of a 32-bit kernel have 4, so
// BPF_CORE_READ would read the next member too. This reads the kernel's number of bytes to the start of a zeroed u64. On a
// big-endian machine they end up in the high bytes, hence the shift. (The verifier forbids the alternative, a pointer to
// the last bytes of the u64.)
static __always_inline __u64 read_integer(const void *object, __u32 offset, __u32 size)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, size, object + offset);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	value >>= 8 * (sizeof(value) - size);
#endif
	return value;
}

#define READ(object, type, member) read_integer(object, OFFSET(type, member), SIZE(type, member))

// A renamed member, by the name that the kernel has. Not `?:` over the two offsets: clang may compute both, and the
// missing one makes the load fail. The verifier ignores a branch that is never taken.
static __always_inline __u32 state_of(const void *task)
{
	if (EXISTS(task_struct, __state))
		return READ(task, task_struct, __state);
	return READ(task, task_struct___before, state);
}

// A member that moved, and that some kernels have in neither struct.
static __always_inline __u32 cpu_of(const void *task)
{
	if (EXISTS(task_struct___before, cpu))
		return READ(task, task_struct___before, cpu);
	if (EXISTS(task_struct, thread_info) && EXISTS(thread_info, cpu))
		return READ(task + OFFSET(task_struct, thread_info), thread_info, cpu);
	return NO_CPU;
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(report_exec, struct task_struct *task)
{
	const void *parent = (const void *)READ(task, task_struct, real_parent);
	struct exec_event event = {};

	event.pid = READ(task, task_struct, tgid);
	event.parent = READ(parent, task_struct, tgid);
	event.parent_state = state_of(parent);
	event.parent_cpu = cpu_of(parent);
	bpf_probe_read_kernel_str(event.comm, sizeof(event.comm), (void *)task + OFFSET(task_struct, comm));
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return 0;
}

// Only programs under the GPL (here by choice) may call bpf_probe_read_kernel and bpf_perf_event_output.
char LICENSE[] SEC("license") = "GPL";
