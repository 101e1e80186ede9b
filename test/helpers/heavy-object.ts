/* A valid BPF object that is too complex: it has one relocation half a million times. */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { coreObjects } from './core.ts'

const RELOCATIONS = 500_000
/** `struct btf_ext_header` (include/uapi/linux/btf.h, tools/lib/bpf/btf.c), and the size of a CO-RE relocation record */
const CORE_RELO_OFF = 24
const CORE_RELO_LEN = 28
const RECORD = 16

/** Makes the object in a directory, from the named fixture. */
export function heavyObject(directory: string, name = 'task'): Buffer {
  const [object, section] = [join(directory, 'heavy.o'), join(directory, 'heavy.ext')]
  const from = coreObjects('el').get(name)!
  execFileSync('llvm-objcopy', ['--dump-section', `.BTF.ext=${section}`, from, object])
  writeFileSync(section, repeated(readFileSync(section)))
  execFileSync('llvm-objcopy', ['--update-section', `.BTF.ext=${section}`, from, object])
  return readFileSync(object)
}

/** `.BTF.ext` with a relocation table that repeats its first record. */
function repeated(ext: Buffer): Buffer {
  const at = ext.readUInt32LE(4) + ext.readUInt32LE(CORE_RELO_OFF)
  const head = Buffer.from(ext.subarray(at, at + 12)) // record size, section name, record count
  head.writeUInt32LE(RELOCATIONS, 8)
  const record = ext.subarray(at + 12, at + 12 + RECORD)
  const table = Buffer.concat([head, Buffer.alloc(RELOCATIONS * RECORD, record)])
  const grown = Buffer.concat([ext.subarray(0, at), table])
  grown.writeUInt32LE(table.length, CORE_RELO_LEN)
  return grown
}
