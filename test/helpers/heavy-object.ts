/* A BPF object that is sound, and far too much: one of its relocations, half a million times. */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { coreObjects } from './core.ts'

const MANY = 500_000
/** `struct btf_ext_header` (include/uapi/linux/btf.h, tools/lib/bpf/btf.c), and a record of its last table */
const CORE_RELO_OFF = 24
const CORE_RELO_LEN = 28
const RECORD = 16

/** Makes one in a directory, from the object with that name among the fixtures. */
export function heavyObject(directory: string, name = 'task'): Buffer {
  const [object, section] = [join(directory, 'heavy.o'), join(directory, 'heavy.ext')]
  const from = coreObjects('el').get(name)!
  execFileSync('llvm-objcopy', ['--dump-section', `.BTF.ext=${section}`, from, object])
  writeFileSync(section, repeated(readFileSync(section)))
  execFileSync('llvm-objcopy', ['--update-section', `.BTF.ext=${section}`, from, object])
  return readFileSync(object)
}

/** `.BTF.ext` with a table of relocations that has the first one of them, again and again. */
function repeated(ext: Buffer): Buffer {
  const at = ext.readUInt32LE(4) + ext.readUInt32LE(CORE_RELO_OFF)
  const head = Buffer.from(ext.subarray(at, at + 12)) // size of a record, name of the section, how many
  head.writeUInt32LE(MANY, 8)
  const record = ext.subarray(at + 12, at + 12 + RECORD)
  const table = Buffer.concat([head, Buffer.alloc(MANY * RECORD, record)])
  const grown = Buffer.concat([ext.subarray(0, at), table])
  grown.writeUInt32LE(table.length, CORE_RELO_LEN)
  return grown
}
