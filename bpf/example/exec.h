// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// What exec.bpf.c reports and agent.c prints. Fixed-width members: kernel and agent may differ in word size.
#ifndef EXEC_H
#define EXEC_H

#include <linux/types.h>

struct exec_event {
	__u32 pid;          // the process that called execve(): its tgid, which user space calls pid
	__u32 parent;       // its parent's
	__u32 parent_state; // what the parent does meanwhile: bits as in the kernel's TASK_*
	__u32 parent_cpu;   // where the parent runs, or ran last; NO_CPU where the kernel keeps that elsewhere
	char comm[16];
};

#define NO_CPU (~0U)

#endif
