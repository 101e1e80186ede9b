/* Small trees of kernel headers: real C that compiles in a tenth of a second, with the files that packages have beside it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export const HEADERS_RELEASE = '6.1.9-9-test'

/** The options of a small x86_64 kernel. */
const OPTIONS = ['64BIT', 'CC_IS_GCC', 'SMP', 'NET']

export interface HeaderTreeOptions {
  release?: string
  /** the folder below `arch/` (default: x86) */
  arch?: 'x86' | 'arm64'
  /** further options that are `y` */
  options?: readonly string[]
  /** files by their paths in the tree, in place of others; undefined leaves one out */
  files?: Readonly<Record<string, string | undefined>>
}

const SCHED = `#ifndef SCHED_H
#define SCHED_H
struct mm_struct { unsigned long pgd; };
struct task_struct {
	unsigned long state;
	int pid;
	int tgid;
	struct mm_struct *mm;
	char stack[600];
	unsigned flags : 3;
};
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID };
#endif
`

/** The files of a tree by their paths. */
export function headerFiles({
  release = HEADERS_RELEASE,
  arch = 'x86',
  options = [],
  files = {},
}: HeaderTreeOptions = {}): Record<string, string> {
  const set = [arch === 'x86' ? 'X86_64' : 'ARM64', ...OPTIONS, ...options]
  const all: Record<string, string | undefined> = {
    'include/generated/autoconf.h': `${set.map((name) => `#define CONFIG_${name} 1\n`).join('')}#define CONFIG_USB_MODULE 1\n#define CONFIG_CC_VERSION_TEXT "gcc (Debian 12.2.0) 12.2.0"\n`,
    'include/config/auto.conf': `${set.map((name) => `CONFIG_${name}=y\n`).join('')}CONFIG_USB=m\n`,
    'include/generated/utsrelease.h': `#define UTS_RELEASE "${release}"\n`,
    'include/generated/utsversion.h': '#define UTS_VERSION "#1 SMP Test 6.1.9-1"\n',
    'include/generated/asm-offsets.h':
      '#define TASK_pid 8 /* offsetof(struct task_struct, pid) */\n#define TASK_size 632 /* sizeof(struct task_struct) */\n#define OTHER 5 /* offsetof(struct not_here, at) */\n',
    'include/linux/kconfig.h': '#include <generated/autoconf.h>\n',
    'include/linux/compiler_types.h': '#define __user\n',
    'include/linux/sched.h': SCHED,
    'include/linux/fs.h': '#include <linux/sched.h>\nstruct file { struct task_struct *owner; };\n',
    'include/linux/usb.h': 'struct usb_device { int devnum; };\n',
    'include/linux/skbuff.h': 'struct sk_buff { unsigned len; };\n',
    [`arch/${arch}/include/asm/ptrace.h`]: 'struct pt_regs { unsigned long ip; };\n',
    'Module.symvers': '0x12345678\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n',
    ...files,
  }
  return Object.fromEntries(
    Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}

/** Writes files below a directory. */
export function writeTree(directory: string, files: Readonly<Record<string, string>>): string {
  for (const [path, text] of Object.entries(files)) {
    const target = join(directory, path)
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, text)
  }
  return directory
}

/** Writes files below a directory; returns their paths on disk, by their paths in a package. */
export function packageFiles(
  directory: string,
  files: Readonly<Record<string, string>>,
  root: string,
): Record<string, string> {
  writeTree(directory, files)
  return Object.fromEntries(
    Object.keys(files).map((path) => [`${root}/${path}`, join(directory, path)]),
  )
}
