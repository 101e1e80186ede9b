// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// What exec.bpf.c reports and agent.c prints. Fixed-width members: kernel and agent may differ in word size.
#ifndef EXEC_H
#define EXEC_H

#include <linux/types.h>

struct exec_event {
	__u32 pid;    // the process that called execve(): its tgid, which user space calls pid
	__u32 parent; // its parent's
	char comm[16];
};

#endif
