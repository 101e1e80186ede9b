/* Proof by compiler that the C that we print for a BTF has the BTF's sizes and offsets. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identifier, Names } from '../../bpf/c-name.ts'
import {
  type Btf,
  KIND,
  type Member,
  parseBtf,
  printHeader,
  type StructType,
} from '../../bpf/index.ts'
import { memberBits, resolve, sizeOf } from '../../bpf/layout.ts'

/** A target triple of clang. */
export type Triple = `${string}-linux-${string}` | 'bpfel' | 'bpfeb'

/** Static asserts for the size of each named struct, union and enum, and the offset of each addressable member. */
function staticAsserts(btf: Btf): string[] {
  const names = new Names(btf)
  const asserts: string[] = []
  for (let id = 1; id < btf.endId; id++) {
    const type = btf.type(id)
    if (type.name === '') continue
    if (type.kind === 'STRUCT' || type.kind === 'UNION') {
      const tag = `${type.kind.toLowerCase()} ${names.tag(id)}`
      asserts.push(`_Static_assert(sizeof(${tag}) == ${type.size}, "${tag}");`)
      asserts.push(...offsetAsserts(btf, type, tag, 0, 0))
    } else if (type.kind === 'ENUM64' || (type.kind === 'ENUM' && type.values.length > 0)) {
      const tag = `enum ${names.tag(id)}`
      asserts.push(`_Static_assert(sizeof(${tag}) == ${type.size}, "${tag}");`)
    }
  }
  return asserts
}

function offsetAsserts(
  btf: Btf,
  struct: StructType,
  tag: string,
  base: number,
  depth: number,
): string[] {
  return struct.members.flatMap((member: Member) => {
    const { offset, size } = memberBits(btf, struct, member)
    if (size > 0) return []
    const at = base + offset / 8
    const type = btf.type(resolve(btf, member.type))
    if (member.name === '') {
      const inline = (type.kind === 'STRUCT' || type.kind === 'UNION') && depth < 20
      return inline ? offsetAsserts(btf, type, tag, at, depth + 1) : []
    }
    const name = identifier(member.name)
    const text = `_Static_assert(__builtin_offsetof(${tag}, ${name}) == ${at}, "${tag}.${name}");`
    // functions and flexible arrays have no size
    const bytes = sizeOf(btf, member.type)
    if (bytes === undefined || bytes === 0) return [text]
    return [
      text,
      `_Static_assert(sizeof(((${tag} *)0)->${name}) == ${bytes}, "sizeof ${tag}.${name}");`,
    ]
  })
}

/** Compiles C for a target. Throws with clang's messages. */
export function compile(text: string, triple: Triple, ...options: string[]): void {
  execFileSync('clang', [`--target=${triple}`, '-x', 'c', ...options, '-'], {
    input: text,
    stdio: ['pipe', 'ignore', 'pipe'],
    maxBuffer: 1 << 28,
  })
}

/** The printed header with asserts, as one text to compile, and the number of asserts. */
export function withAsserts(btf: Btf): { text: string; count: number } {
  const asserts = staticAsserts(btf)
  return { text: [...printHeader(btf), ...asserts, ''].join('\n'), count: asserts.length }
}

/** The BTF that pahole makes of our header, compiled for a target. It has the bitfields, which asserts cannot reach. */
export function roundTrip(btf: Btf, triple: Triple): Btf {
  const names = new Names(btf)
  const uses: string[] = []
  for (let id = 1; id < btf.endId; id++) {
    const kind = btf.kind(id)
    if ((kind !== KIND.STRUCT && kind !== KIND.UNION) || btf.name(id) === '') continue
    const sort = kind === KIND.STRUCT ? 'struct' : 'union'
    uses.push(`${sort} ${names.tag(id)} *use_${id};`)
  }
  const folder = mkdtempSync(join(tmpdir(), 'btfmill-'))
  try {
    const object = join(folder, 'header.o')
    const options = ['-g', '-c', '-ffreestanding', '-DBPF_NO_PRESERVE_ACCESS_INDEX', '-o', object]
    compile([...printHeader(btf), ...uses, ''].join('\n'), triple, ...options)
    const encoded = join(folder, 'header.btf')
    execFileSync('pahole', ['--btf_gen_all', `--btf_encode_detached=${encoded}`, object])
    writeFileSync(object, '')
    return parseBtf(readFileSync(encoded))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
