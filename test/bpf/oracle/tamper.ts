/*
 * CO-RE objects that no compiler makes: a seed changes one relocation record, or the instruction that it patches. The
 * object stays valid as ELF and BTF, so libbpf processes the relocation, and its result can be compared.
 */
import { type ByteOrder, memorySource, openElf } from '../../../bpf/index.ts'

/** A CO-RE record: its offset in the file, and the offset of its section's instructions. */
interface Record {
  at: number
  instructions: number
}

export interface Tampered {
  object: Buffer
  /** the change, for the message of a failing test */
  change: string
}

/**
 * The tampered copy of an object for a seed; equal seeds give equal copies. undefined if the object has no relocations.
 */
export function tamper(original: Buffer, seed: number): Tampered | undefined {
  const object = Buffer.from(original)
  const elf = openElf(memorySource(object))
  const order = elf.byteOrder
  const btf = elf.section('.BTF')!
  const records = recordsOf(object, elf.section('.BTF.ext')!.offset, order, (name) => {
    const strings =
      btf.offset + read(object, btf.offset + 4, order) + read(object, btf.offset + 16, order)
    return elf.section(stringAt(object, strings + name))!.offset
  })
  if (records.length === 0) return undefined
  const random = randomFrom(seed)
  const record = records[random(records.length)]!
  const other = records[random(records.length)]!
  const field = (at: number, offset: number) => read(object, at + offset, order)
  const instruction = record.instructions + field(record.at, 0)
  const set = (at: number, value: number, what: string) => {
    const before = read(object, at, order)
    write(object, at, value, order)
    return `${what} ${before} → ${value}`
  }
  const changes: readonly (() => string)[] = [
    () => set(record.at + 12, random(14), 'kind'),
    () => set(record.at + 4, random(field(record.at, 4) * 2 + 4), 'type'),
    () => set(record.at + 4, field(other.at, 4), 'type'),
    () => set(record.at + 8, field(other.at, 8) + random(3), 'access'),
    () => set(record.at, Math.max(0, field(record.at, 0) + 8 * (random(5) - 2)), 'instruction'),
    () => set(instruction + 4, field(instruction, 4) + random(3) - 1, 'immediate'),
    () => set(instruction, (field(instruction, 0) ^ (1 << random(32))) >>> 0, 'code'),
    () => set(instruction, field(other.instructions + field(other.at, 0), 0), 'code'),
  ]
  const change = changes[random(changes.length)]!()
  return { object, change: `record at ${record.at}: ${change}` }
}

/** All records of the CO-RE part of `.BTF.ext` (libbpf src/btf.c, struct btf_ext_header). */
function recordsOf(
  file: Buffer,
  extension: number,
  order: ByteOrder,
  instructionsOf: (sectionName: number) => number,
): Record[] {
  const records: Record[] = []
  const header = read(file, extension + 4, order)
  const start = extension + header + read(file, extension + 24, order)
  const end = start + read(file, extension + 28, order)
  const size = read(file, start, order)
  let at = start + 4
  while (at < end) {
    const instructions = instructionsOf(read(file, at, order))
    const count = read(file, at + 4, order)
    for (let index = 0; index < count; index++)
      records.push({ at: at + 8 + index * size, instructions })
    at += 8 + count * size
  }
  return records
}

function read(file: Buffer, at: number, order: ByteOrder): number {
  return order === 'little' ? file.readUInt32LE(at) : file.readUInt32BE(at)
}

function write(file: Buffer, at: number, value: number, order: ByteOrder): void {
  if (order === 'little') file.writeUInt32LE(value >>> 0, at)
  else file.writeUInt32BE(value >>> 0, at)
}

function stringAt(file: Buffer, at: number): string {
  return file.toString('latin1', at, file.indexOf(0, at))
}

/** mulberry32: neighbouring seeds give different numbers. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}
