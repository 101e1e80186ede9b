/*
 * The first cases of `npm run fuzz`, and reduced versions of its findings. Each finding once took minutes, gigabytes or
 * the whole stack.
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { findCandidates } from '../../bpf/candidate.ts'
import {
  describeVmlinux,
  memorySource,
  openElf,
  openObject,
  parseBtf,
  printHeader,
  printLayout,
  readBtf,
  relocate,
} from '../../bpf/index.ts'
import { caseOf, run } from '../fuzz/case.ts'
import { Defect } from '../fuzz/door.ts'
import { Random } from '../fuzz/random.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture } from '../helpers/fixtures.ts'

const CASES = 1500

t.test('every entry point gives a value or an error with a code for mutated input', async (t) => {
  const outcomes = new Map<string, Set<string>>()
  for (let seed = 1; seed <= CASES; seed++) {
    for (const { door, outcome } of await run(caseOf(seed))) {
      outcomes.set(door, (outcomes.get(door) ?? new Set()).add(outcome))
    }
  }
  for (const [door, seen] of outcomes) {
    // a whole kernel is hardly ever a distilled base
    const isExpected = seen.has('value') || door.startsWith('relocateBase, ')
    t.ok(isExpected, `${door}: ${[...seen].join(', ')}`)
  }
  t.ok(outcomes.size > 40, `${outcomes.size} entry points`)
})

t.test('equal seeds make equal cases', (t) => {
  for (let seed = 1; seed <= 100; seed++) t.same(caseOf(seed).bytes, caseOf(seed).bytes)
  t.not(Buffer.compare(caseOf(1).bytes, caseOf(2).bytes), 0)
  t.end()
})

t.test('an entry point that throws anything but a BtfError is reported as a Defect', async (t) => {
  class Broken extends Random {
    #isFirst = true
    /** Picks the first entry point, which then fails. */
    override pick<T>([first]: readonly T[]): T {
      if (!this.#isFirst) throw new TypeError('a defect')
      this.#isFirst = false
      return first!
    }
  }
  const bytes = fixture('types-arm.btf')
  await t.rejects(run({ name: '', sort: 'btf', bytes, random: new Broken(1) }), Defect)
})

const MANY = 100_000
const many = <T>(length: number, make: (i: number) => T) =>
  Array.from({ length }, (_, i) => make(i))
const header = (words: readonly number[], strings: string) =>
  [...printHeader(parseBtf(craft(words, strings)))].join('')

t.test('printing many types of one name ends quickly', (t) => {
  const structs = many(MANY, () => [1, info(4), 0]).flat()
  t.match(header(structs, '\0a\0'), `struct a___${MANY} {}`)
  const unions = many(MANY, () => [1, info(5), 0]).flat()
  const forwards = many(MANY, () => [1, info(7), 0]).flat()
  t.match(header([...unions, ...forwards], '\0a\0'), `struct a___${MANY + 1};`)
  t.end()
})

t.test('printing a function that takes itself as parameter fails with cycle', (t) => {
  const btf = parseBtf(craft([0, info(13, 1), 0, 0, 2, 0, info(2), 1]))
  t.throws(() => printLayout(btf, 1), { code: 'cycle' })
  t.end()
})

t.test('anonymous structs, each of which contains the next twice, fail with too_large', (t) => {
  const next = (i: number) => [0, info(4, 2), 0, 0, i + 2, 0, 0, i + 2, 0]
  const words = [...many(50, next).flat(), 0, info(4), 0, 1, info(4, 1), 0, 0, 1, 0]
  t.throws(() => header(words, '\0a\0'), { code: 'too_large' })
  t.throws(() => printLayout(parseBtf(craft(words, '\0a\0')), 52), { code: 'too_large' })
  t.end()
})

t.test('a struct with the largest possible size fails with too_large', (t) => {
  const byte = [1, info(1), 1, 8]
  const words = [...byte, 3, info(4, 2), 0xffffffff, 3, 1, 0, 3, 1, 0xfffffff8]
  t.throws(() => header(words, '\0c\0s\0'), { code: 'too_large' })
  t.end()
})

t.test('the layout of many members that are large unions ends quickly', (t) => {
  const members = many(MANY, () => [1, 1, 0]).flat()
  const words = [1, info(5, MANY), 8, ...members, 1, info(5, MANY), 8, ...members]
  t.match(printLayout(parseBtf(craft(words, '\0a\0')), 2), `members: ${MANY}`)
  t.end()
})

t.test('names that are tails of one long string are rejected as too_large', (t) => {
  const words = many(MANY, (i) => [1 + i, info(7), 0]).flat()
  const strings = `\0${'a'.repeat(2 * MANY)}\0`
  t.throws(() => parseBtf(craft(words, strings)), { code: 'too_large' })
  const base = parseBtf(craft([], strings))
  t.throws(
    () => parseBtf(craft(words, ''), { base }),
    { code: 'too_large' },
    'the names of the base count too',
  )
  t.equal(
    parseBtf(craft([1, info(7), 0], strings)).name(1).length,
    2 * MANY,
    'one long name is valid',
  )
  t.end()
})

t.test('many local types and many kernel types with one initial relocate quickly', (t) => {
  const count = MANY / 5
  const names = many(count, (i) => `a${String(i).padStart(5, '0')}`)
  const words = names.flatMap((_, i) => [1 + i * 7, info(4), 0])
  const btf = parseBtf(craft(words, `\0${names.join('\0')}\0`))
  const found = findCandidates(
    btf,
    btf,
    names.map((_, i) => {
      return { section: '', index: i, offset: 0, type: i + 1, access: '0', kind: 'type_exists' }
    }),
  )
  t.same(
    [...found].filter(([type, ids]) => ids.join() !== String(type)),
    [],
  )
  t.end()
})

interface Section {
  name: number
  type: number
  flags?: number
  offset: number
  size: number
}

/** A 64-bit BPF ELF file: content from byte 64, then section headers; the first section after null has the names. */
function elf(content: Buffer, sections: readonly Section[]): Buffer {
  const file = Buffer.alloc(64 + content.length + 64 * (sections.length + 1))
  file.write('\x7fELF\x02\x01\x01', 'latin1')
  file.writeUInt16LE(247, 18)
  file.writeBigUInt64LE(BigInt(64 + content.length), 40)
  file.writeUInt16LE(64, 58)
  file.writeUInt16LE(sections.length + 1, 60)
  file.writeUInt16LE(1, 62)
  content.copy(file, 64)
  for (const [i, { name, type, flags = 0, offset, size }] of sections.entries()) {
    const at = 64 + content.length + 64 * (i + 1)
    file.writeUInt32LE(name, at)
    file.writeUInt32LE(type, at + 4)
    file.writeBigUInt64LE(BigInt(flags), at + 8)
    file.writeBigUInt64LE(BigInt(offset), at + 24)
    file.writeBigUInt64LE(BigInt(size), at + 32)
  }
  return file
}

t.test('section names that are tails of one long string fail with too_large', (t) => {
  const names = Buffer.from(`\0${'a'.repeat(MANY)}\0`)
  const table = { name: 0, type: 3, offset: 64, size: names.length }
  const file = elf(names, [table, ...many(60_000, (i) => ({ ...table, name: i + 1 }))])
  t.throws(() => openElf(memorySource(file)), { code: 'too_large' })
  t.end()
})

t.test('many sections with the same bytes are rejected as overlapping', (t) => {
  const object = readFileSync(coreObjects('el').get('plain')!)
  const table = Number(object.readBigUInt64LE(40))
  const count = object.readUInt16LE(60)
  const code = openElf(memorySource(object)).sections.find(({ flags }) => (flags & 4n) !== 0n)!
  const headers = object.subarray(table, table + count * 64)
  const one = Buffer.from(object.subarray(table + code.index * 64, table + (code.index + 1) * 64))
  one.writeBigUInt64LE(BigInt(MANY), 32)
  const gap = Buffer.alloc(-object.length & 7)
  const file = Buffer.concat([object, gap, headers, ...many(50_000, () => one)])
  file.writeBigUInt64LE(BigInt(object.length + gap.length), 40)
  file.writeUInt16LE(count + 50_000, 60)
  t.throws(() => openObject(file), { code: 'invalid_elf', message: /overlap/ })
  t.end()
})

t.test('of two sections of one name only the first and its programs count, as in libbpf', (t) => {
  const object = readFileSync(coreObjects('el').get('type')!)
  const table = Number(object.readBigUInt64LE(40))
  const { code } = openObject(object)
  const sections = openElf(memorySource(object)).sections.filter(({ name }) => code.has(name))
  const kernels = [...littleKernels().values()].map((path) => readBtf(readFileSync(path)))
  for (const first of sections) {
    for (const second of sections.filter(({ index }) => index > first.index)) {
      const renamed = Buffer.from(object)
      const [from, to] = [second, first].map(({ index }) => table + index * 64) as [number, number]
      renamed.copyWithin(to, from, from + 4)
      const opened = openObject(renamed)
      t.equal(opened.code.get(second.name)?.length, first.size)
      for (const kernel of kernels.filter(({ byteOrder }) => byteOrder === 'little'))
        t.doesNotThrow(() => relocate(opened, kernel))
    }
  }
  t.end()
})

t.test('an image full of false banners is searched quickly', (t) => {
  const names = Buffer.from('\0.rodata\0')
  const lie = `Linux version 1 (${') #1'.repeat(200)}`
  const data = Buffer.from('Linux version 1 ('.repeat(MANY / 2) + `${lie}\n\n`.repeat(1000))
  const content = Buffer.concat([names, data])
  const file = elf(content, [
    { name: 0, type: 3, offset: 64, size: names.length },
    { name: 1, type: 1, offset: 64 + names.length, size: data.length },
  ])
  t.equal(describeVmlinux(memorySource(file)).release, undefined)
  t.end()
})
