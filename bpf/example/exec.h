// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// The event that exec.bpf.c reports and agent.c prints. Members have fixed widths: kernel and agent may differ in word size.
#ifndef EXEC_H
#define EXEC_H

#include <linux/types.h>

struct exec_event {
	__u32 pid;          // the process that called execve(): its tgid, which user space calls pid
	__u32 parent;       // the tgid of its parent
	__u32 parent_state; // state of the parent: bits of the kernel's TASK_*
	__u32 parent_cpu;   // CPU on which the parent runs or ran last; NO_CPU if the kernel stores it elsewhere
	char comm[16];
};

#define NO_CPU (~0U)

#endif
