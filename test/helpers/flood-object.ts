/*
 * A small BPF object with a large answer: its relocations share one long access string, which names no type's member. A
 * check has a line of 100 characters or more for each relocation, which takes 16 bytes in the object.
 */
import { craft, info } from './craft.ts'

const SECTION = 'kprobe/x'
/** the same first byte for every access: member 0 of `task_struct`, then steps that it does not have */
const STRINGS = (access: string) => `\0${SECTION}\0task_struct\0${access}\0int\0pid\0`

/** Makes the object, with `count` relocations that share an access string of `length` characters; `salt` makes objects differ. */
export function floodObject(length: number, count: number, salt = ''): Buffer {
  const access = 'x'.repeat(length) + salt
  const strings = STRINGS(access)
  const at = (text: string) => strings.indexOf(`\0${text}\0`) + 1
  const int = [at('int'), info(1), 4, (1 << 24) | 32]
  const struct = [at('task_struct'), info(4, 1), 4, at('pid'), 1, 0]
  const btf = craft([...int, ...struct], strings)
  return elfOf(btf, extOf([0, 2, at(access), 0], count, at(SECTION)))
}

/** `.BTF.ext` with one relocation many times (`struct btf_ext_header`, `struct bpf_core_relo`). */
function extOf(relocation: readonly number[], count: number, section: number): Buffer {
  const record = Buffer.concat(relocation.map(u32))
  const table = [u32(record.length), u32(section), u32(count), Buffer.alloc(count * 16, record)]
  const body = Buffer.concat(table)
  const words = [32, 0, 0, 0, 0, 0, body.length].map(u32)
  return Buffer.concat([Buffer.from([0x9f, 0xeb, 1, 0]), ...words, body])
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

interface Section {
  name: string
  type: number
  flags?: number
  content: Buffer
  link?: number
  info?: number
  entry?: number
}

/** A BPF object with one program of eight instructions (ELF64, little-endian, EM_BPF). */
function elfOf(btf: Buffer, ext: Buffer): Buffer {
  const code = Buffer.concat([
    Buffer.alloc(7 * 8, Buffer.from([0xb7, 0, 0, 0, 0, 0, 0, 0])),
    Buffer.from([0x95, 0, 0, 0, 0, 0, 0, 0]),
  ])
  const symbol = Buffer.alloc(48)
  symbol.writeUInt32LE(1, 24)
  symbol.writeUInt8(0x12, 28) // a global function
  symbol.writeUInt16LE(1, 30)
  symbol.writeBigUInt64LE(BigInt(code.length), 40)
  const names = `\0${SECTION}\0.BTF\0.BTF.ext\0.symtab\0.strtab\0.shstrtab\0`
  const sections: Section[] = [
    { name: SECTION, type: 1, flags: 6, content: code },
    { name: '.BTF', type: 1, content: btf },
    { name: '.BTF.ext', type: 1, content: ext },
    { name: '.symtab', type: 2, content: symbol, link: 5, info: 1, entry: 24 },
    { name: '.strtab', type: 3, content: Buffer.from('\0prog\0') },
    { name: '.shstrtab', type: 3, content: Buffer.from(names) },
  ]
  const parts = [Buffer.alloc(64)]
  const headers = [Buffer.alloc(64)]
  let offset = 64
  for (const { name, type, flags = 0, content, link = 0, info = 0, entry = 0 } of sections) {
    const header = Buffer.alloc(64)
    header.writeUInt32LE(names.indexOf(`\0${name}\0`) + 1, 0)
    header.writeUInt32LE(type, 4)
    header.writeBigUInt64LE(BigInt(flags), 8)
    header.writeBigUInt64LE(BigInt(offset), 24)
    header.writeBigUInt64LE(BigInt(content.length), 32)
    header.writeUInt32LE(link, 40)
    header.writeUInt32LE(info, 44)
    header.writeBigUInt64LE(8n, 48)
    header.writeBigUInt64LE(BigInt(entry), 56)
    headers.push(header)
    const padded = Buffer.concat([content, Buffer.alloc(-content.length & 7)])
    parts.push(padded)
    offset += padded.length
  }
  const elf = Buffer.concat([...parts, ...headers])
  Buffer.from('7f454c460201010000000000000000000100f70001000000', 'hex').copy(elf)
  elf.writeBigUInt64LE(BigInt(offset), 40)
  const tail = [64, 0, 0, 64, headers.length, headers.length - 1]
  tail.forEach((value, i) => {
    elf.writeUInt16LE(value, 52 + 2 * i)
  })
  return elf
}
