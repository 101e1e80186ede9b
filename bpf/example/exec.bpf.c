// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// Reports every successful execve(): pid and command name, parent's pid, and what the parent does meanwhile, and where.
//
// A CO-RE program for kernels from 4.17 on, with or without BTF of their own, 64 or 32 bit, of either byte order:
// a raw tracepoint (fentry would need the kernel's own BTF), a perf buffer (ring buffers came in 5.8), and hand-written
// types instead of a vmlinux.h: only the members used, which libbpf finds by name in the BTF of the running kernel.
//
//   clang -g -O2 -target bpf -I/usr/include/$(uname -m)-linux-gnu -c exec.bpf.c -o exec.bpf.o
//
// For another byte order than this machine's: -target bpfel or bpfeb. With -DLAYOUT='"FILE"' it is no CO-RE program, but
// one for the one kernel whose layout that file tells (see the script `layout`): it needs no BTF at all.
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

// The same struct as it was before: libbpf leaves out what follows ___ of a name when it looks for the kernel's type.
struct task_struct___before {
	long state;       // up to 5.13
	unsigned int cpu; // up to 5.15
} __attribute__((preserve_access_index));

// Offset and size in bytes, and whether there is such a member: libbpf writes the running kernel's into the program.
#define FIELD(type, member, what) __builtin_preserve_field_info(((struct type *)0)->member, what)
#define OFFSET(type, member) FIELD(type, member, BPF_FIELD_BYTE_OFFSET)
#define SIZE(type, member) FIELD(type, member, BPF_FIELD_BYTE_SIZE)
#define EXISTS(type, member) FIELD(type, member, BPF_FIELD_EXISTS) // as bpf_core_field_exists()
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

// A member of the kernel's width: BPF's long and pointers have 8 bytes, those of a 32-bit kernel 4, and BPF_CORE_READ
// would read the next member with them. So this reads as many as the kernel has, to the start of a zeroed u64. A
// big-endian machine has the low end of an integer at its end: hence the shift. (The verifier forbids the other way, a
// pointer to the last bytes of the u64.)
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

// A renamed member: whichever there is. Not `?:` over the two offsets: clang may then compute both, and the one that is
// not there ends the program; a branch not taken is never looked at.
static __always_inline __u32 state_of(const void *task)
{
	if (EXISTS(task_struct, __state))
		return READ(task, task_struct, __state);
	return READ(task, task_struct___before, state);
}

// A member that moved, and that some kernels have in neither place.
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

// The kernel lets only programs under the GPL (here: by choice) call bpf_probe_read_kernel and bpf_perf_event_output.
char LICENSE[] SEC("license") = "GPL";
