/*
 * The proof that layouts are right: `asm-offsets.h` has offsets and sizes that the kernel's own compiler wrote when the
 * kernel was built (arch/…/kernel/asm-offsets.c, include/linux/kbuild.h). Our BTF must have the same.
 */
import { type Btf, constantsOf } from '../../bpf/index.ts'
import { GeneratorError } from '../error.ts'
import type { HeaderTree } from './tree.ts'

const FILES = [
  'include/generated/asm-offsets.h',
  'include/generated/rq-offsets.h',
  'include/generated/vmlinux-offsets.h',
]
const MAX_FILE = 1024 ** 2
/** More are not compared; kernels have a hundred. */
const MAX_OFFSETS = 10_000
/** Ended by the comment's end: `#define NAME 16 /* offsetof(struct task_struct, thread.sp)`. */
const LINE =
  /^#define \w{1,200} (\d{1,9}) \/\* (?:offsetof\((?:struct|union) (\w{1,200}), ?([\w.]{1,200})\)|sizeof\((?:struct|union) (\w{1,200})\)) \*\/$/

/**
 * Compares BTF with the offsets of a tree. Returns the number of offsets and sizes that are equal; those of types that the
 * BTF lacks do not count. Errors: `layout_mismatch` for the first that differs.
 */
export async function checkOffsets(tree: HeaderTree, btf: Btf): Promise<number> {
  const expected = new Map<string, number>()
  for (const file of FILES) {
    for (const line of ((await tree.read(file, MAX_FILE)) ?? '').split('\n')) {
      const [, value, type, member, whole] = LINE.exec(line) ?? []
      if (value === undefined || expected.size >= MAX_OFFSETS) continue
      expected.set(whole === undefined ? `${type}.${member}` : whole, Number(value))
    }
  }
  const paths = [...expected.keys()]
  let equal = 0
  for (const [index, constant] of constantsOf(btf, paths).entries()) {
    if (constant.kind !== 'offset' && constant.kind !== 'size') continue
    const path = paths[index]!
    if (constant.value !== expected.get(path))
      throw new GeneratorError(
        'layout_mismatch',
        `the kernel has ${path} at ${expected.get(path)}, the compiled headers at ${constant.value}: the compiler or its options differ from the kernel's`,
      )
    equal++
  }
  return equal
}
