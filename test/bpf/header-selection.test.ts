// A header of what an object uses compiles with the object's source, and gives the same object.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type BpfObject, openObject, printHeader, readBtf, relocate } from '../../bpf/index.ts'
import { run } from '../helpers/command.ts'

/** A kernel: what the object uses, what that needs, and what it does not. */
const KERNEL = `
typedef signed char __s8; typedef unsigned char __u8; typedef short __s16; typedef unsigned short __u16;
typedef int __s32; typedef unsigned int __u32; typedef long long __s64; typedef unsigned long long __u64;
typedef __u32 __wsum; typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
typedef _Bool bool; typedef __u64 u64; typedef int pid_t; typedef struct { __u32 val; } kuid_t;
enum bpf_map_type { BPF_MAP_TYPE_UNSPEC, BPF_MAP_TYPE_HASH };
enum bpf_update_flags { BPF_ANY, BPF_NOEXIST } flags;
enum zone_type { ZONE_DMA, ZONE_NORMAL };
struct list_head { struct list_head *next, *prev; };
struct nsproxy { int count; };
struct cred { long usage; kuid_t uid; };
struct pt_regs { unsigned long di, si; };
struct task_struct {
  enum zone_type zone; struct list_head tasks; pid_t pid, tgid; struct task_struct *real_parent;
  const struct cred *cred; struct nsproxy *nsproxy; unsigned int in_execve : 1; char comm[16];
};
struct unrelated { struct task_struct *task; } unrelated;
struct pt_regs *regs; struct task_struct init; struct cred cred; struct nsproxy nsproxy; enum bpf_map_type map_type; __wsum sum; __be32 be32; __be64 be64; bool yes; u64 a;
__s8 s8; __u8 u8; __s16 s16; __be16 be16; __s32 s32; __s64 s64;
#define KFUNC __attribute__((btf_decl_tag("bpf_kfunc")))
KFUNC struct task_struct *bpf_task_from_pid(int pid) { return 0; }
KFUNC void bpf_other(struct unrelated *other) {}
`

const SOURCE = `
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
struct {
  __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, pid_t); __type(value, u64);
} seen SEC(".maps");
SEC("kprobe/vfs_read") int enter(struct pt_regs *context)
{
  struct task_struct *task = (void *)bpf_get_current_task();
  pid_t pid = BPF_CORE_READ(task, real_parent, tgid);
  u64 id = BPF_CORE_READ(task, cred, uid.val);
  bpf_map_update_elem(&seen, &pid, &id, BPF_ANY);
  return bpf_task_from_pid(pid) != 0;
}
`

const folder = t.testdir({ 'kernel.c': KERNEL, 'object.bpf.c': SOURCE })
const at = (name: string) => join(folder, name)
const clang = (source: string, output: string, ...options: string[]) =>
  execFileSync(
    'clang',
    ['--target=bpfel', '-g', '-O2', '-Werror', `-I${folder}`, ...options]
      .concat('-Wno-unknown-attributes')
      .concat('-c', at(source), '-o', at(output)),
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
clang('kernel.c', 'kernel.o')
const kernel = readBtf(readFileSync(at('kernel.o')))

/** Compiles the object's source with a header. */
function objectWith(header: string): BpfObject {
  writeFileSync(at('vmlinux.h'), header)
  clang('object.bpf.c', 'object.bpf.o')
  return openObject(readFileSync(at('object.bpf.o')))
}

const whole = [...printHeader(kernel)].join('')
const object = objectWith(whole)
const header = [...printHeader(kernel, { objects: [object] })].join('')

t.test('the header has whole types, and only those that the object uses', async (t) => {
  t.match(header, /struct task_struct \{\n\tenum zone_type zone;\n[^}]*\tchar comm\[16\];\n\}/)
  t.match(header, /enum zone_type \{\n/, 'a member needs it')
  t.match(header, /struct nsproxy;\n/, 'a pointer needs no members')
  t.notMatch(header, /struct nsproxy \{|struct unrelated|bpf_other/)
  t.match(header, 'BPF_NOEXIST = 1', 'an object does not tell which constants it uses')
  t.match(header, 'extern struct task_struct *bpf_task_from_pid(int pid) __weak __ksym;')
  t.match(whole, /struct unrelated[\s\S]*bpf_other/)
})

t.test('the source compiles with it to the same relocations', async (t) => {
  const again = objectWith(header)
  const outcomes = (of: BpfObject) => relocate(of, kernel).relocations.map((one) => one.outcome)
  t.ok(outcomes(object).length >= 4)
  t.same(outcomes(again), outcomes(object))
})

t.test('dump --object prints it', async (t) => {
  const { status, stdout } = await run('dump', at('kernel.o'), '--object', at('object.bpf.o'))
  t.equal(status, 0)
  t.equal(stdout, header)
})

t.test('a header without any type of an object still compiles', async (t) => {
  const small = [...printHeader(kernel, { objects: [] })].join('')
  t.notMatch(small, 'task_struct')
  writeFileSync(at('vmlinux.h'), small)
  writeFileSync(at('empty.bpf.c'), '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n')
  // clang warns of an attribute for structs where there are none
  t.doesNotThrow(() => clang('empty.bpf.c', 'empty.bpf.o', '-Wno-error=pragma-clang-attribute'))
})
