/* Hostile BPF objects. */
import { craft } from '../helpers/craft.ts'

const PROGRAM = 'kprobe/x'
/** Instructions of the program: `r0 = 0` seven times, and `exit`. */
const CODE = Buffer.from(`${'b700000000000000'.repeat(7)}9500000000000000`, 'hex')
const SECTION_NAMES = `\0.text\0.BTF\0.BTF.ext\0.symtab\0.strtab\0.shstrtab\0${PROGRAM}\0`

/**
 * An object with `count` relocations that share one access string of `length` characters. A service that repeats the
 * string in its answer for each of them needs gigabytes. `salt` makes its bytes differ from those of other objects.
 */
export function longAccess(length: number, count: number, salt: string): Buffer {
  const texts = ['', PROGRAM, 'task_struct', 'x'.repeat(length) + salt, 'int', 'pid']
  const at = texts.map((_, i) => Buffer.byteLength(texts.slice(0, i).join('\0')) + (i > 0 ? 1 : 0))
  const [, program, task, access, int, pid] = at as [0, number, number, number, number, number]
  const btf = craft(
    [int, 1 << 24, 4, (1 << 24) | 32, task, (4 << 24) | 1, 4, pid, 1, 0],
    `${texts.join('\0')}\0`,
  )
  const relocation = words(0, 2, access, 0)
  const relocations = Buffer.concat([
    words(16, program, count),
    ...Array.from({ length: count }, () => relocation),
  ])
  const ext = Buffer.concat([
    Buffer.from('9feb0100', 'hex'),
    words(32, 0, 0, 0, 0, 0, relocations.length),
    relocations,
  ])
  const symbols = Buffer.concat([
    Buffer.alloc(24),
    words(1),
    Buffer.from('12000100', 'hex'),
    words(0, 0, CODE.length, 0),
  ])
  return elf([
    { name: PROGRAM, type: 1, flags: 6, bytes: CODE },
    { name: '.BTF', type: 1, bytes: btf },
    { name: '.BTF.ext', type: 1, bytes: ext },
    { name: '.symtab', type: 2, bytes: symbols, link: 5, info: 1, entry: 24 },
    { name: '.strtab', type: 3, bytes: Buffer.from('\0prog\0') },
    { name: '.shstrtab', type: 3, bytes: Buffer.from(SECTION_NAMES) },
  ])
}

interface Section {
  name: string
  type: number
  flags?: number
  bytes: Buffer
  link?: number
  info?: number
  entry?: number
}

function elf(sections: readonly Section[]): Buffer {
  const pieces: Buffer[] = [Buffer.alloc(64)]
  const headers: Buffer[] = [Buffer.alloc(64)]
  let end = 64
  for (const { name, type, flags = 0, bytes, link = 0, info = 0, entry = 0 } of sections) {
    const nameAt = SECTION_NAMES.indexOf(`${name}\0`)
    headers.push(
      words(nameAt, type, flags, 0, 0, 0, end, 0, bytes.length, 0, link, info, 8, 0, entry, 0),
    )
    const padding = Buffer.alloc(-bytes.length & 7)
    pieces.push(bytes, padding)
    end += bytes.length + padding.length
  }
  const header = Buffer.from('7f454c46020101000000000000000000', 'hex')
  const rest = Buffer.alloc(48)
  rest.writeUInt16LE(1, 0) // ET_REL
  rest.writeUInt16LE(247, 2) // EM_BPF
  rest.writeUInt32LE(1, 4)
  rest.writeUInt32LE(end, 24) // section headers
  ;[64, 0, 0, 64, headers.length, sections.length].forEach((value, i) => {
    rest.writeUInt16LE(value, 36 + i * 2)
  })
  pieces[0] = Buffer.concat([header, rest])
  return Buffer.concat([...pieces, ...headers])
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4)
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, i * 4)
  return bytes
}
