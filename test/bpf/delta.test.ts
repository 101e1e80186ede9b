/* Deltas between the fixtures: every pair gives its child back, odd bytes too, and damaged deltas are refused. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import t from 'tap'
import { hashDeclarations, hashStrings } from '../../bpf/declaration.ts'
import { plainDelta } from '../../bpf/delta-stream.ts'
import { wordsOfBtf } from '../../bpf/delta-words.ts'
import {
  applyDelta,
  BtfError,
  type BtfType,
  DeltaChain,
  DeltaChainCache,
  encodeBtf,
  encodeDelta,
  parseBtf,
} from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture, fixtureNames } from '../helpers/fixtures.ts'

/** Small BTF of nine machines, both byte orders, 32 and 64 bits. */
const samples: readonly (readonly [name: string, bytes: Buffer])[] = [
  ...fixtureNames(/^types-.*\.btf$/).map((name) => [name, fixture(name)] as const),
  ...[...littleKernels()].map(([name, path]) => [name, readFileSync(path)] as const),
]
const [, first] = samples[0]!

const isPlain = (delta: Uint8Array) => (delta[5]! & 1) === 1

t.test('a root gives its BTF back byte for byte, in both byte orders', (t) => {
  const orders = new Set<string>()
  for (const [name, bytes] of samples) {
    const delta = encodeDelta(bytes)
    orders.add(parseBtf(bytes).byteOrder)
    t.notOk(isPlain(delta), name)
    t.ok(bytes.equals(applyDelta(delta)), name)
  }
  t.same([...orders].sort(), ['big', 'little'])
  t.end()
})

t.test('a delta between any two BTFs gives the child back, whatever their byte orders', (t) => {
  for (const [name, child] of samples) {
    for (const [parentName, parent] of samples) {
      const delta = encodeDelta(child, parent)
      if (isPlain(delta) || !child.equals(applyDelta(delta, parent)))
        t.fail(`${name} from ${parentName}`)
    }
  }
  t.pass(`${samples.length ** 2} pairs`)
  t.end()
})

t.test('the delta from a BTF to itself is small, and a parent may be an open BTF', (t) => {
  for (const [name, bytes] of samples) {
    const delta = encodeDelta(bytes, parseBtf(bytes))
    t.ok(delta.length < 80, `${name}: ${delta.length} bytes`)
    t.ok(bytes.equals(applyDelta(delta, parseBtf(bytes))), name)
  }
  t.end()
})

t.test('encoding and applying leave the bytes that they are given unchanged', (t) => {
  const copies = samples.slice(0, 2).map(([, bytes]) => Buffer.from(bytes))
  const delta = encodeDelta(copies[1]!, copies[0]!)
  const applied = Buffer.from(applyDelta(delta, copies[0]!))
  t.ok(applied.equals(samples[1]![1]))
  applied.fill(0)
  for (const [i, copy] of copies.entries()) t.ok(copy.equals(samples[i]![1]))
  t.end()
})

t.test('a chain gives every kernel on its way, also across byte orders', (t) => {
  const chain = new DeltaChain()
  let parent: Buffer | undefined
  for (const [name, bytes] of samples) {
    chain.apply(encodeDelta(bytes, parent))
    t.ok(bytes.equals(chain.bytes()), name)
    parent = bytes
  }
  const whole = new DeltaChain(first)
  for (const [i, [, bytes]] of samples.entries()) {
    if (i > 0) whole.apply(encodeDelta(bytes, samples[i - 1]![1]))
  }
  t.ok(samples.at(-1)![1].equals(whole.bytes()), 'only the last one is made')
  t.end()
})

/** BTF with one long struct, which a delta of its size copies, and an integer. */
function longStruct(size: number): Uint8Array {
  const members = Array.from({ length: 20_000 }, (_, i) => ({
    ...{ name: `m${i}`, type: 0, bitOffset: i * 32, bitfieldSize: 0 },
  }))
  return encodeBtf([
    { kind: 'STRUCT', id: 1, name: 'long', size, flag: false, members },
    { kind: 'TYPEDEF', id: 2, name: 'other', type: 1, flag: false },
  ])
}

t.test('a chain stays small and right, however many deltas it applies', (t) => {
  const [one, two] = [longStruct(80_000), longStruct(80_004)]
  const [there, back] = [encodeDelta(two, one), encodeDelta(one, two)]
  const chain = new DeltaChain(one)
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 400; i++) {
    chain.apply(there)
    chain.apply(back)
  }
  t.ok(Buffer.from(one).equals(chain.bytes()))
  const grown = process.memoryUsage().arrayBuffers - before
  t.ok(grown < 2 ** 27, `${grown} bytes`)
  t.end()
})

t.test('a chain of odd BTF, which readers refuse, does not grow without end', (t) => {
  const [one, two] = [longStruct(80_000), longStruct(80_004)]
  const [there, back] = [encodeDelta(two, one), encodeDelta(one, two)]
  const words = wordsOfBtf(one)!
  words.words[words.at[2]! + 1]! |= 1 // a vlen, which a TYPEDEF has not
  const chain = new DeltaChain(words)
  const apply = () => {
    for (let i = 0; i < 400; i++) {
      chain.apply(there)
      chain.apply(back)
    }
  }
  t.throws(apply, { code: 'invalid_delta', message: /it continues BTF that is odd/ })
  t.end()
})

t.test('a copy of a chain goes its own way, and leaves the chain as it is', (t) => {
  const [[, one], [, two], [, three]] = samples as [
    [string, Buffer],
    [string, Buffer],
    [string, Buffer],
  ]
  const chain = new DeltaChain()
  chain.apply(encodeDelta(one))
  const copies = [chain.clone(), chain.clone()]
  copies[0]!.apply(encodeDelta(two, one))
  chain.apply(encodeDelta(three, one))
  for (const [i, expected] of [two, one].entries()) t.ok(expected.equals(copies[i]!.bytes()))
  t.ok(three.equals(chain.bytes()))
  const broken = chain.clone()
  const delta = encodeDelta(two, three)
  t.throws(() => broken.apply(delta.subarray(0, -1)), { code: 'invalid_delta' })
  copies[1]!.apply(encodeDelta(two, one))
  t.ok(two.equals(copies[1]!.bytes()), 'a delta that fails in one harms no other')
  t.ok(three.equals(chain.bytes()))
  const odd = new DeltaChain()
  odd.apply(plainDelta(Buffer.from('odd')))
  t.same(Buffer.from(odd.clone().bytes()), Buffer.from('odd'))
  t.throws(() => odd.apply(Buffer.from('x')))
  t.throws(() => odd.clone(), { code: 'invalid_delta' })
  t.end()
})

t.test('a cache of chains gives what a line has already, and copies what others continue', (t) => {
  const [[, one], [, two], [, three]] = samples as [
    [string, Buffer],
    [string, Buffer],
    [string, Buffer],
  ]
  const cache = new DeltaChainCache(2)
  const line = (...names: string[]) => names.map((name) => ({ name, isShared: name === 'one' }))
  const read = (names: string[], deltas: Uint8Array[]) => {
    const { chain, applied } = cache.take(line(...names))
    for (const delta of deltas.slice(applied)) chain.apply(delta)
    const bytes = chain.bytes()
    cache.keep(names.at(-1)!, chain)
    return { applied, bytes }
  }
  const root = encodeDelta(one)
  t.match(read(['one'], [root]), { applied: 0, bytes: one })
  t.match(read(['one', 'two'], [root, encodeDelta(two, one)]), { applied: 1, bytes: two })
  t.match(read(['one', 'three'], [root, encodeDelta(three, one)]), { applied: 1, bytes: three })
  t.equal(cache.take(line('one', 'two')).applied, 1, 'two was kept longest ago, and made room')
  t.equal(cache.take(line('one', 'three')).applied, 2)
  t.equal(cache.take(line('one', 'three')).applied, 1, 'what no other continues was given away')
  cache.clear()
  t.equal(cache.take(line('one')).applied, 0)
  t.end()
})

t.test('a long chain drops the records that changed', (t) => {
  const chain = new DeltaChain(first)
  const others = [encodeDelta(samples[3]![1], first), encodeDelta(first, samples[3]![1])] as const
  for (let i = 0; i < 4000; i++) chain.apply(others[i % 2]!)
  t.ok(first.equals(chain.bytes()))
  t.end()
})

/** A BTF whose types have other ids. */
function shuffled(bytes: Uint8Array, step: number): Buffer {
  const types = [...parseBtf(bytes).types()]
  const count = types.length
  // a step that is prime to the count visits each type once
  while (gcd(step, count) !== 1) step++
  const idOf = (id: number) => (((id - 1) * step) % count) + 1
  const moved: BtfType[] = []
  for (const type of types) moved[idOf(type.id) - 1] = renumbered(type, idOf)
  return Buffer.from(encodeBtf(moved, { byteOrder: parseBtf(bytes).byteOrder }))
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b)
}

t.test('a BTF whose types are shuffled comes back exactly, and costs no texts', (t) => {
  for (const [name, bytes] of samples) {
    for (const step of [7, 101]) {
      const child = shuffled(bytes, step)
      const delta = encodeDelta(child, bytes)
      t.ok(child.equals(applyDelta(delta, bytes)), name)
      t.ok(delta.length < bytes.length / 3, `${name}: ${delta.length} bytes`)
    }
  }
  t.end()
})

t.test('a shuffled BTF with thousands of names tells their order by first use', (t) => {
  const names = Array.from({ length: 3000 }, (_, i) => `type_number_${i}`)
  const make = (place: (i: number) => number) => {
    const types: BtfType[] = []
    for (let i = 0; i < names.length; i++) {
      const name = names[place(i)]!
      const members = [{ name: `member_of_${name}`, type: 0, bitOffset: 0, bitfieldSize: 0 }]
      types.push({ kind: 'STRUCT', id: i + 1, name, size: 4, flag: false, members })
    }
    return encodeBtf(types)
  }
  const [parent, child] = [make((i) => i), make((i) => (i * 1237) % names.length)]
  const delta = encodeDelta(child, parent)
  t.ok((delta[5]! & 4) !== 0, 'the flag of an order by use')
  t.ok(Buffer.from(child).equals(applyDelta(delta, parent)))
  t.ok(delta.length < 20_000, `${delta.length} bytes`)
  t.end()
})

t.test('a new member, a longer name and a removed type cost tens of bytes', (t) => {
  const parent = samples.find(([name]) => name === 'types-x86_64.btf')![1]
  const btf = parseBtf(parent)
  const types = [...btf.types()]
  const id = types.findIndex((type) => type.kind === 'STRUCT' && type.members.length > 3)
  const struct = types[id]!
  if (struct.kind !== 'STRUCT') throw new Error('no struct')
  const [head, ...rest] = struct.members
  const members = [
    head!,
    { ...head!, name: 'brand_new', bitOffset: head!.bitOffset + 64 },
    ...rest.map((member) => ({ ...member, bitOffset: member.bitOffset + 64 })),
  ]
  types[id] = { ...struct, size: struct.size + 8, members }
  const child = Buffer.from(encodeBtf(types, { strings: btf.strings }))
  const delta = encodeDelta(child, parent)
  t.ok(child.equals(applyDelta(delta, parent)))
  t.ok(delta.length < 120, `${delta.length} bytes`)
  t.end()
})

/** Bytes with something odd about them. */
const odd: Readonly<Record<string, Buffer>> = {
  'no bytes': Buffer.alloc(0),
  text: Buffer.from('this is no BTF'),
  'a header of 32 bytes': craft([1, info(1), 4, 0x01000020], '\0int\0', [16, 0]),
  'an unknown kind with a layout section': craft(
    [0, info(20, 0), 0, ...Array.from({ length: 21 }, () => 0)],
    '\0a\0',
    [12, 84],
  ),
  'strings that do not end in NUL': craft([], '\0abc'),
  'a name that is the tail of another': craft([2, info(7), 0], '\0abc\0'),
  'a string that occurs twice': craft([1, info(7), 0, 3, info(7), 0], '\0a\0a\0'),
  'an empty string in between': craft([1, info(7), 0], '\0a\0\0b\0'),
  'a count in a kind without elements': craft([1, info(7, 3), 0], '\0a\0'),
  'a gap between types and strings': gap(),
  'bytes at the end': Buffer.concat([first, Buffer.from([1, 2, 3])]),
  'a header that is cut off': first.subarray(0, 20),
  'the magic of neither byte order': Buffer.from(first).fill(0, 0, 2),
  'split BTF': fixture('module-x86_64.btf'),
}

function gap(): Buffer {
  const bytes = craft([1, info(7), 0], '\0a\0')
  bytes.writeUInt32LE(16, 16)
  return Buffer.concat([bytes.subarray(0, 36), Buffer.from('gap!'), bytes.subarray(36)])
}

t.test('odd bytes are stored as they are, and a child of odd bytes needs no parent', (t) => {
  for (const [name, bytes] of Object.entries(odd)) {
    const delta = encodeDelta(bytes, first)
    t.ok(isPlain(delta), name)
    t.ok(bytes.equals(applyDelta(delta)), name)
    t.ok(bytes.equals(applyDelta(delta, first)), `${name}, with a parent`)
    const child = encodeDelta(first, bytes)
    t.ok(first.equals(applyDelta(child, bytes)), `a child of ${name}`)
    t.ok(first.equals(applyDelta(child)), `a child of ${name}, without it`)
    const chain = new DeltaChain()
    for (const step of [delta, child]) chain.apply(step)
    t.ok(first.equals(chain.bytes()), `a chain through ${name}`)
  }
  t.end()
})

t.test('words that no compiler writes come back too', (t) => {
  const strange: Record<string, Buffer> = {
    'a reference to itself': craft([0, info(2), 1], '\0'),
    'a circle of types without names': craft([0, info(2), 2, 0, info(10), 1], '\0'),
    'a size in an array, a size in a declaration': craft(
      [0, info(3), 99, 1, 1, 0xffffffff, 1, info(7, 0, 1), 0xffffffff],
      '\0a\0',
    ),
    'extreme values': craft(
      [1, info(6, 2, 1), 4, 3, 0x80000000, 5, 0x7fffffff]
        .concat([0, info(4, 2, 1), 0xffffffff, 3, 1, 0xffffffff, 3, 2, 0])
        .concat([0, info(19, 1), 8, 5, 0xffffffff, 0xffffffff]),
      '\0e\0v\0w\0',
    ),
    'strings without a type': craft([3, info(7), 0], '\0a\0b\0c\0'),
    'a chain of 10,000 pointers': craft(
      Array.from({ length: 10_000 }, (_, i) => [0, info(2), i]).flat(),
      '\0',
    ),
    'bytes that are no UTF-8': craft([1, info(7), 0], '\0\xff\xfe\0'),
  }
  for (const [name, bytes] of Object.entries(strange)) {
    const delta = encodeDelta(bytes)
    t.notOk(isPlain(delta), name)
    t.ok(bytes.equals(applyDelta(delta)), name)
    for (const other of Object.values(strange)) {
      if (!bytes.equals(applyDelta(encodeDelta(bytes, other), other))) t.fail(name)
    }
  }
  t.end()
})

/** The error of a call. */
function errorOf(call: () => unknown): unknown {
  try {
    return call()
  } catch (error) {
    return error instanceof BtfError ? error.code : error
  }
}

t.test('a delta that is cut off, too long or changed gives a coded error or other bytes', (t) => {
  const child = samples[1]![1]
  const delta = encodeDelta(child, first)
  for (let length = 0; length < delta.length; length++) {
    if (errorOf(() => applyDelta(delta.subarray(0, length), first)) !== 'invalid_delta')
      t.fail(`cut off at ${length}`)
  }
  t.equal(
    errorOf(() => applyDelta(Buffer.concat([delta, Buffer.from([0])]), first)),
    'invalid_delta',
  )
  for (let at = 0; at < delta.length; at++) {
    for (const change of [0x01, 0x80, 0xff]) {
      const damaged = Uint8Array.from(delta)
      damaged[at]! ^= change
      const result = errorOf(() => applyDelta(damaged, first))
      if (result !== 'invalid_delta' && !(result instanceof Uint8Array)) t.fail(`${at}: ${result}`)
    }
  }
  t.pass(`${delta.length} bytes`)
  t.end()
})

t.test('a delta of another parent, or another version, is refused', (t) => {
  const delta = encodeDelta(samples[1]![1], first)
  t.throws(() => applyDelta(delta), { code: 'invalid_delta' })
  t.throws(() => applyDelta(delta, samples[2]![1]), { code: 'invalid_delta' })
  t.throws(() => applyDelta(delta, Buffer.from('no BTF')), { code: 'invalid_delta' })
  const newer = Uint8Array.from(delta)
  newer[4] = 2
  t.throws(() => applyDelta(newer, first), { message: /unsupported version 2: expected 1/ })
  t.end()
})

t.test('a chain refuses all calls after an error', (t) => {
  const chain = new DeltaChain(first)
  const delta = encodeDelta(samples[1]![1], first)
  const damaged = Uint8Array.from(delta)
  damaged.fill(0xff, damaged.length - 40)
  t.throws(() => chain.apply(damaged), { code: 'invalid_delta' })
  t.throws(() => chain.apply(delta), { code: 'invalid_delta' })
  t.throws(() => chain.bytes(), { code: 'invalid_delta' })
  t.end()
})

t.test('a result over the limit is refused before it is made', (t) => {
  const delta = encodeDelta(first)
  const maxSize = first.length - 1
  t.throws(() => applyDelta(delta, undefined, { maxSize }), { code: 'invalid_delta' })
  t.ok(first.equals(applyDelta(delta, undefined, { maxSize: first.length })))
  t.throws(() => applyDelta(plainDelta(first), undefined, { maxSize }), { code: 'invalid_delta' })
  t.end()
})

/** LEB128. */
function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(Math.floor(value / 0x80))]
}

/** A delta from numbers of its header and contents of its streams by name. */
function handmade(
  { size = 1000, types = 0, strings = 0, parentTypes = 0, parentStrings = 0, flags = 0 },
  streams: Readonly<Record<string, readonly number[]>>,
): Uint8Array {
  const contents = STREAMS.map((name) => streams[name] ?? [])
  return Uint8Array.from([
    ...[0x42, 0x54, 0x46, 0xde, 1],
    ...[flags, size, types, strings, parentTypes, parentStrings].flatMap(varint),
    ...contents.flatMap(({ length }) => varint(length)),
    ...contents.flat(),
  ])
}

/** The streams in their order, as delta.md lists them. */
const STREAMS = [
  ...readFileSync(join(import.meta.dirname, '../../bpf/delta.md'), 'utf8').matchAll(
    /^\| \d+ +\| `(\w+)` /gm,
  ),
].map(([, name = '']) => name)

t.test('deltas made by hand from the specification give their BTF', (t) => {
  t.equal(STREAMS.length, 35)
  // the root of one FWD named "a": one new string, one new type
  const root = handmade(
    { size: 24 + 12 + 3, types: 1, strings: 1 },
    {
      ...{ typeMoves: [6], typeRuns: [1], typeNews: [0] },
      ...{ stringMoves: [6], stringRuns: [1], stringNews: [0] },
      ...{ kinds: [7], typeNames: [1], sizes: [0], text: [0x61, 0] },
    },
  )
  const fwd = craft([1, info(7), 0], '\0a\0')
  t.ok(fwd.equals(applyDelta(root)))
  t.same(encodeDelta(fwd), root, 'the encoder makes the same')
  t.end()
})

t.test('hostile deltas end at once with a coded error', (t) => {
  const parent = craft(
    [1, info(4, 2), 8, 3, 0, 0, 5, 0, 32, 0, info(13, 1), 0, 3, 1],
    '\0s\0a\0b\0',
  )
  const same = { types: 2, strings: 3, parentTypes: 2, parentStrings: 3, size: parent.length }
  const kept = { typeMoves: [6], typeRuns: [4], stringMoves: [6], stringRuns: [6] }
  t.ok(parent.equals(applyDelta(handmade(same, kept), parent)), 'a delta that changes nothing')
  const max = varint(0xffffffff)
  const hostile: Record<string, Uint8Array> = {
    'four thousand million bytes': handmade({ ...same, size: 0xffffffff }, kept),
    'more types than the size holds': handmade({ ...same, types: 0xffffffff }, kept),
    'more types than there are': handmade({ ...same, size: 1 << 25, types: 1 << 20 }, kept),
    'more strings than there are': handmade({ ...same, size: 1 << 25, strings: 1 << 20 }, kept),
    'a run beyond the parent': handmade(
      { ...same, types: 3, size: 1000 },
      { ...kept, kinds: [7], typeRuns: [6] },
    ),
    'a run of four thousand million': handmade(same, { ...kept, typeRuns: max }),
    'four thousand million new types': handmade(same, { ...kept, typeRuns: [1], typeNews: max }),
    'an empty segment': handmade(same, { ...kept, typeRuns: [0] }),
    'a cursor before the first': handmade(same, { ...kept, typeMoves: [8] }),
    'a cursor far behind the last': handmade(same, {
      ...{ ...kept, typeMoves: [4], typeMovesHigh: max, typeMovesLow: [255] },
    }),
    'a changed type without changes before it': handmade(same, { ...kept, changed: [0] }),
    'a changed type behind the last': handmade(same, { ...kept, changed: [6], edits: [0, 0] }),
    'a number of more than 32 bits': handmade(same, { ...kept, changed: [255, 255, 255, 255, 31] }),
    'a count of four thousand million': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [4], typeNames: [0], counts: max },
    }),
    'a count without elements': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [4], typeNames: [0], counts: varint(0xffffff) },
    }),
    'an unknown kind': handmade(same, { ...kept, changed: [3], kinds: [20] }),
    'kind 0': handmade(same, { ...kept, changed: [3], kinds: [0] }),
    'a name behind the strings': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [7], typeNames: [3], farNamesHigh: [0] },
      ...{ farNamesLow: [4], sizes: [0] },
    }),
    'a new string where there is none': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [7], typeNames: [1], sizes: [0] },
    }),
    'an unknown code of a name': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [7], typeNames: [4], sizes: [0] },
    }),
    'a type behind the last': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [2], typeNames: [0], pointers: [5] },
    }),
    'a guess where there is none': handmade(same, {
      ...{ ...kept, changed: [3], kinds: [2], typeNames: [0], pointers: [0] },
    }),
    'elements to skip that are not there': handmade(same, {
      ...{ ...kept, changed: [2], edits: [0, 3 * 4] },
    }),
    'elements to copy that are not there': handmade(same, {
      ...{ ...kept, changed: [2], edits: [0, ...max] },
    }),
    'an element to change that is not there': handmade(same, {
      ...{ ...kept, changed: [2], edits: [0, 2 * 4, 7, 0] },
    }),
    'an unknown edit': handmade(same, { ...kept, changed: [2], edits: [0, 1] }),
    'an unknown change': handmade(same, { ...kept, changed: [2], edits: [0, 8 * 4 + 3, 0] }),
    'a value of a parameter': handmade(same, {
      ...kept,
      changed: [4],
      edits: [0, 4 * 4 + 3, 99, 0],
    }),
    'elements of a type that has none': handmade(
      { ...same, size: parent.length + 12, types: 3 },
      { ...kept, typeRuns: [5], typeNews: [0], kinds: [7], changed: [6] },
    ),
    'a type that is gone, and named': handmade(
      { ...same, types: 1 },
      { ...kept, typeMoves: [7], typeRuns: [2] },
    ),
    'a string that is gone, and named': handmade(
      { ...same, strings: 2 },
      { ...kept, stringRuns: [4] },
    ),
    'text that does not end': handmade(
      { ...same, strings: 4 },
      { ...kept, stringRuns: [7], stringNews: [0], text: [0x61] },
    ),
    'text of no string': handmade(same, { ...kept, text: [0x61, 0] }),
    'a size that is wrong': handmade({ ...same, size: parent.length + 4 }, kept),
    'a size that is no multiple': handmade({ ...same, size: parent.length + 1 }, kept),
    'unknown flags': handmade({ ...same, flags: 8 }, kept),
    'new strings in the order of use': handmade(
      { ...same, flags: 4 },
      { ...kept, stringMoves: [6, 6], stringRuns: [6, 1], stringNews: [2] },
    ),
    'a stream that is not read to its end': handmade(same, { ...kept, payloads: [0] }),
    'plain bytes that are too few': Uint8Array.of(0x42, 0x54, 0x46, 0xde, 1, 1, 99, 1, 2),
  }
  for (const [name, delta] of Object.entries(hostile)) {
    t.equal(
      errorOf(() => applyDelta(delta, parent)),
      'invalid_delta',
      name,
    )
  }
  t.end()
})

t.test('an order that jumps back over what was taken, again and again, is read at once', (t) => {
  // the first half is taken in one run; then each segment goes back to the first type, which is taken, for one more
  const count = 300_000
  const half = count / 2
  const parent = craft(Array.from({ length: count }, () => [0, info(2), 0]).flat(), '\0')
  const [moves, high, low, runs] = [[6], [] as number[], [] as number[], varint(half * 2)]
  for (let i = 0; i < half; i++) {
    moves.push(5)
    high.push(...varint((half + i) >> 8))
    low.push((half + i) & 0xff)
    runs.push(2)
  }
  const delta = handmade(
    { size: parent.length, types: count, parentTypes: count },
    { typeMoves: moves, typeMovesHigh: high, typeMovesLow: low, typeRuns: runs },
  )
  t.ok(parent.equals(applyDelta(delta, parent)))
  t.end()
})

t.test('a function that returned nothing and returns a new type now comes back exactly', (t) => {
  const make = (returns: boolean) =>
    craft(
      [1, info(4), 0, 0, info(13, 1), returns ? 4 : 0, 3, 1, 5, info(12, 1), 2].concat(
        returns ? [7, info(4), 0] : [],
      ),
      returns ? '\0s\0p\0f\0t\0' : '\0s\0p\0f\0',
    )
  for (const [parent, child] of [
    [make(false), make(true)],
    [make(true), make(false)],
  ] as const) {
    const delta = encodeDelta(child, parent)
    t.notOk(isPlain(delta))
    t.ok(child.equals(applyDelta(delta, parent)))
  }
  t.end()
})

t.test('declarations are equal in all kernels that have them, whatever their ids', (t) => {
  const hashesOf = (bytes: Uint8Array) => {
    const words = wordsOfBtf(bytes)!
    const { low, high } = hashDeclarations(words, hashStrings(words))
    return Array.from(low, (half, id) => `${half} ${high[id]}`).slice(1)
  }
  for (const [name, bytes] of samples) {
    const own = hashesOf(bytes)
    t.same(hashesOf(shuffled(bytes, 7)).sort(), own.sort(), name)
    const byteOrder = parseBtf(bytes).byteOrder === 'little' ? 'big' : 'little'
    const swapped = encodeBtf(parseBtf(bytes).types(), { byteOrder })
    t.same(hashesOf(swapped).sort(), own, `${name}, ${byteOrder}`)
    t.ok(new Set(own).size > own.length * 0.9, `${new Set(own).size} of ${own.length} distinct`)
  }
  t.end()
})

t.test(
  'a member more changes the declaration of its struct, and not those that point to it',
  (t) => {
    const make = (extra: boolean) => {
      const member = (name: string, bitOffset: number) => ({
        name,
        type: 1,
        bitOffset,
        bitfieldSize: 0,
      })
      const members = [member('a', 0), ...(extra ? [member('b', 32)] : [])]
      const int = { size: 4, signed: true, char: false, bool: false, bits: 32, bitOffset: 0 }
      const words = wordsOfBtf(
        encodeBtf([
          { kind: 'INT', id: 1, name: 'int', ...int },
          { kind: 'STRUCT', id: 2, name: 's', size: 8, flag: false, members },
          { kind: 'PTR', id: 3, name: '', type: 2, flag: false },
        ]),
      )!
      return hashDeclarations(words, hashStrings(words))
    }
    const [one, two] = [make(false), make(true)]
    t.equal(one.low[1], two.low[1])
    t.not(one.low[2], two.low[2])
    t.equal(one.low[3], two.low[3])
    t.end()
  },
)

const KERNELS = join(import.meta.dirname, '../../.cache/kernels')
const kernels = existsSync(KERNELS)
  ? readdirSync(KERNELS).filter((file) => /\.btf$/.test(file))
  : []

t.test(
  'real kernels of ten architectures come back exactly, alone and in a chain',
  kernels.length === 0
    ? { skip: 'no kernels in .cache/kernels: `npm run test:long` gets them' }
    : {},
  (t) => {
    const chain = new DeltaChain()
    let parent: Buffer | undefined
    for (const name of kernels) {
      const bytes = readFileSync(join(KERNELS, name))
      const delta = encodeDelta(bytes, parent)
      chain.apply(delta)
      t.ok(bytes.equals(chain.bytes()), name)
      t.ok(bytes.equals(applyDelta(delta, parent)), name)
      t.notOk(isPlain(delta), name)
      if (parent) {
        const sizes = [zstdCompressSync(delta).length, zstdCompressSync(bytes).length] as const
        t.ok(sizes[0] < sizes[1] / 2, `${name}: ${sizes.join(' of ')} bytes`)
      }
      parent = bytes
    }
    t.end()
  },
)
