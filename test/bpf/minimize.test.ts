import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import {
  type BpfObject,
  type Btf,
  BtfError,
  type BtfType,
  type CoreRelocation,
  compareLayouts,
  encodeBtf,
  type Member,
  minimizeBtf,
  openObject,
  parseBtf,
  readBtf,
  relocate,
  resolve,
  sizeOf,
} from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { differences } from './oracle/agreement.ts'
import { compareGraphs, dumpTypes, minimizeWithBpftool } from './oracle/bpftool.ts'
import { buildRelocate, relocateWithLibbpf } from './oracle/libbpf.ts'

const kernels = [...littleKernels().values()]
const little = coreObjects('el')

function minimize(kernel: Btf, objects: readonly BpfObject[]): Uint8Array | string {
  try {
    return minimizeBtf(kernel, objects)
  } catch (error) {
    if (error instanceof BtfError) return error.code
    throw error
  }
}

/** The results of an object's relocations, without type ids, which differ in a smaller BTF. */
function outcomes(object: BpfObject, kernel: Btf): unknown[] {
  return relocate(object, kernel).relocations.map(({ relocation, outcome }) =>
    relocation.kind === 'target_type_id' && outcome.is === 'ok' ? 'an id' : outcome,
  )
}

const LONG =
  '+ {"kind":"INT","name":"long","size":4,"bits_offset":0,"nr_bits":32,"encoding":"SIGNED"}'

t.test('minimizeBtf keeps the type graph that bpftool keeps', async (t) => {
  const folder = t.testdir()
  const [theirs, ours] = [join(folder, 'theirs.btf'), join(folder, 'ours.btf')]
  for (const file of kernels) {
    const kernel = readBtf(readFileSync(file))
    let equal = 0
    for (const [name, path] of little) {
      const refusal = await minimizeWithBpftool(file, [path], theirs)
      const minimized = minimize(kernel, [openObject(readFileSync(path))])
      const title = `${name} on ${basename(file)}`
      if (name === 'ambiguous') {
        t.equal(minimized, 'invalid_relocation', title)
        t.match(refusal, /error recording relocations/)
      } else if (name === 'forward') {
        t.match(refusal, /unsupported kind: fwd/, 'bpftool 7.1 cannot keep a forward declaration')
        t.type(minimized, Uint8Array, title)
      } else if (typeof minimized === 'string') {
        t.fail(`${title}: ${minimized}`)
      } else {
        t.equal(refusal, undefined, title)
        writeFileSync(ours, minimized)
        // bpftool may forget the size of a 32-bit kernel's pointers; ours keeps the `long` that tells it
        const known = readBtf(readFileSync(theirs)).pointerSize === kernel.pointerSize
        const told = !known && parseBtf(minimized).countOf('PTR') > 0
        const expected = told ? [LONG] : []
        t.same(compareGraphs(await dumpTypes(theirs), await dumpTypes(ours)), expected, title)
        if (!told) t.equal(minimized.length, readFileSync(theirs).length, 'nor is it larger')
        equal++
      }
    }
    t.equal(equal, little.size - 2)
  }
})

t.test('minimizeBtf for several objects keeps what bpftool keeps for them', async (t) => {
  const [file] = kernels
  const paths = ['task', 'bitfield', 'enum', 'match', 'type'].map((name) => little.get(name)!)
  const folder = t.testdir()
  const [theirs, ours] = [join(folder, 'theirs.btf'), join(folder, 'ours.btf')]
  t.equal(await minimizeWithBpftool(file!, paths, theirs), undefined)
  const objects = paths.map((path) => openObject(readFileSync(path)))
  writeFileSync(ours, minimizeBtf(readBtf(readFileSync(file!)), objects))
  t.same(compareGraphs(await dumpTypes(theirs), await dumpTypes(ours)), [])
})

t.test(
  'every object relocates against minimised BTF as against the whole, in either byte order',
  (t) => {
    for (const path of [...little.values(), ...coreObjects('eb').values()]) {
      const object = openObject(readFileSync(path))
      for (const file of kernels) {
        const kernel = readBtf(readFileSync(file))
        const minimized = minimize(kernel, [object])
        if (typeof minimized === 'string') continue
        const small = parseBtf(minimized)
        const title = `${basename(path)} on ${basename(file)}: ${minimized.length} bytes`
        t.same(outcomes(object, small), outcomes(object, kernel), title)
        t.equal(small.byteOrder, kernel.byteOrder)
        t.ok(small.typeCount < kernel.typeCount)
        // minimising the result again changes nothing
        t.ok(
          Buffer.from(minimizeBtf(small, [object])).equals(minimized),
          'minimised BTF minimises to itself',
        )
      }
    }
    t.end()
  },
)

t.test('all objects relocate against BTF minimised for all of them as against the whole', (t) => {
  for (const order of ['el', 'eb'] as const) {
    const paths = [...coreObjects(order)].filter(([name]) => name !== 'ambiguous')
    const objects = paths.map(([, path]) => openObject(readFileSync(path)))
    for (const file of kernels) {
      const kernel = readBtf(readFileSync(file))
      const small = parseBtf(minimizeBtf(kernel, objects))
      for (const [i, object] of objects.entries()) {
        const title = `${paths[i]![0]} on ${basename(file)}`
        t.same(outcomes(object, small), outcomes(object, kernel), title)
      }
    }
  }
  t.end()
})

const hex = (result: Uint8Array | string): string =>
  typeof result === 'string' ? result : Buffer.from(result).toString('hex')

/** The kernel with its types and strings in another order, as another build may have them. */
function shuffled(kernel: Btf, seed: number): Btf {
  const { byteOrder, pointerSize } = kernel
  const order = Array.from({ length: kernel.typeCount }, (_, i) => i + 1)
  let state = seed
  for (let i = order.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    const j = (state >>> 8) % (i + 1)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  const ids = new Map(order.map((old, i) => [old, i + 1]))
  const types = order.map((old) => renumbered(kernel.type(old), (id) => ids.get(id)!))
  return parseBtf(encodeBtf(types, { byteOrder }), { pointerSize })
}

t.test('kernels whose types have other ids give equal bytes, for every object', (t) => {
  const objects = [...little, ...coreObjects('eb')].map(([name, path]) => {
    return { name, object: openObject(readFileSync(path)) }
  })
  const all = objects.filter(({ name }) => name !== 'ambiguous').map(({ object }) => object)
  for (const file of kernels) {
    const kernel = readBtf(readFileSync(file))
    for (const seed of [1, 2, 3]) {
      const other = shuffled(kernel, seed)
      for (const { name, object } of objects) {
        const title = `${name} on ${basename(file)}, order ${seed}`
        t.equal(hex(minimize(other, [object])), hex(minimize(kernel, [object])), title)
        const least = minimize(other, [object])
        if (typeof least === 'string') continue
        t.same(outcomes(object, parseBtf(least)), outcomes(object, other), 'and equal results')
      }
      t.equal(hex(minimize(other, all)), hex(minimize(kernel, all)), `all objects, order ${seed}`)
    }
  }
  t.end()
})

t.test('of two types that would do, the same is kept in whichever order they come', (t) => {
  const holder = (id: number, size: number) => ({ ...struct(id, 's', [['a', 1]]), size }) as BtfType
  const object = objectOf([INT, holder(2, 4)], [['byte_off', 2, '0:0', 0]])
  const [small, large] = [8, 16].map((size) => (id: number) => holder(id, size))
  const one = minimizeBtf(parseBtf(encodeBtf([INT, small!(2), large!(3)])), [object])
  const other = minimizeBtf(parseBtf(encodeBtf([INT, large!(2), small!(3)])), [object])
  t.same(one, other)
  t.equal(parseBtf(one).countOf('STRUCT'), 1)
  t.end()
})

t.test('minimizeBtf for an object without relocations gives BTF without types', (t) => {
  const minimized = minimizeBtf(readBtf(readFileSync(kernels[0]!)), [
    openObject(readFileSync(little.get('plain')!)),
  ])
  t.equal(parseBtf(minimized).typeCount, 0)
  t.equal(minimized.length, 25)
  t.end()
})

const INT = {
  kind: 'INT',
  id: 1,
  name: 'int',
  size: 4,
  signed: true,
  char: false,
  bool: false,
  bits: 32,
  bitOffset: 0,
} as const

/** A struct of members with 4 bytes each, or those that are given. */
function struct(id: number, name: string, members: readonly [string, type: number][]): BtfType {
  const placed = members.map(([name, type], i) => ({ name, type, bitOffset: i * 32 }))
  const all = placed.map((member) => ({ ...member, bitfieldSize: 0 }))
  return { kind: 'STRUCT', id, name, size: 4 * members.length, flag: false, members: all }
}

/** An object whose instructions are `r0 = value`, one for each relocation. */
function objectOf(
  types: readonly BtfType[],
  relocations: readonly [kind: CoreRelocation['kind'], type: number, access: string, old: number][],
): BpfObject {
  const section = 'raw_tp'
  const size = relocations.length * 8
  const code = Buffer.alloc(size)
  for (const [i, [, , , old]] of relocations.entries()) {
    code[i * 8] = 0xb7
    code.writeInt32LE(old, i * 8 + 4)
  }
  return {
    byteOrder: 'little',
    btf: parseBtf(encodeBtf(types), { pointerSize: 8 }),
    ext: {
      functions: [],
      lines: [],
      relocations: relocations.map(([kind, type, access], index) => {
        return { section, index, offset: index * 8, type, access, kind }
      }),
    },
    programs: [{ name: 'program', section, offset: 0, size, global: true }],
    calls: [],
    references: new Map(),
    externs: [],
    constants: new Map(),
    code: new Map([[section, code]]),
  }
}

t.test('of several candidates minimizeBtf keeps one that all relocations match', (t) => {
  const short = struct(2, 's', [['a', 1]])
  const long = struct(3, 's', [
    ['a', 1],
    ['b', 1],
  ])
  const kernel = parseBtf(encodeBtf([INT, short, long]))
  const object = objectOf(
    [INT, { ...long, id: 2 } as BtfType],
    [
      ['byte_off', 2, '0:0', 0],
      ['byte_off', 2, '0:1', 4],
    ],
  )
  const small = parseBtf(minimizeBtf(kernel, [object]))
  t.same(outcomes(object, kernel), [
    { is: 'ok', old: 0n, new: 0n },
    { is: 'ok', old: 4n, new: 4n },
  ])
  t.same(outcomes(object, small), outcomes(object, kernel), 'bpftool would poison the second')
  t.same(
    [...small.types()].map(({ name }) => name),
    ['s', 'int'],
  )
  t.end()
})

const reference = (kind: 'PTR' | 'TYPEDEF', id: number, name: string, type: number): BtfType => {
  return { kind, id, name, type, flag: false }
}

t.test('a pointer that is kept for a field does not match as a pointer to void', async (t) => {
  const kernel = parseBtf(
    encodeBtf([
      INT,
      struct(2, 'bar', [['v', 1]]),
      reference('PTR', 3, '', 2),
      reference('TYPEDEF', 4, 'handle_t', 3),
      struct(5, 'holder', [
        ['h', 4],
        ['n', 1],
      ]),
      struct(6, 'foo', [['p', 3]]),
    ]),
    { pointerSize: 4 },
  )
  const object = objectOf(
    [
      INT,
      reference('PTR', 2, '', 0),
      reference('TYPEDEF', 3, 'handle_t', 2),
      struct(4, 'holder', [['h', 3]]),
      struct(5, 'foo', [['p', 2]]),
    ],
    [
      ['field_exists', 4, '0:0', 1],
      ['field_exists', 5, '0:0', 1],
      ['type_exists', 3, '0', 1],
      ['type_matches', 3, '0', 1],
      ['type_matches', 5, '0', 1],
    ],
  )
  t.same(
    outcomes(object, kernel).map((outcome) => (outcome as { is: string }).is),
    ['ok', 'ok', 'absent', 'absent', 'absent'],
  )
  const minimized = minimizeBtf(kernel, [object])
  t.same(outcomes(object, parseBtf(minimized)), outcomes(object, kernel))
  t.same(
    outcomes(object, parseBtf(minimizeBtf(parseBtf(minimized), [object]))),
    outcomes(object, kernel),
    'nor when the result is minimised again',
  )
  const fields = { ...object, ext: { ...object.ext } }
  fields.ext.relocations = object.ext.relocations.slice(0, 2)
  const least = parseBtf(minimizeBtf(kernel, [fields]))
  t.equal(least.find('bar'), undefined, 'without queries about types the pointer leads to void')
  t.end()
})

t.test('an empty array that is not the last member does not become a flexible array', (t) => {
  const empty = { kind: 'ARRAY', name: '', type: 1, indexType: 1, length: 0 } as const
  const members: [string, number][] = [
    ['marker', 2],
    ['after', 1],
  ]
  const kernel = parseBtf(encodeBtf([INT, { ...empty, id: 2 }, struct(3, 's', members)]))
  const object = objectOf(
    [INT, { ...empty, id: 2, length: 4 }, struct(3, 's', [['marker', 2]])],
    [
      ['field_exists', 3, '0:0', 1],
      ['field_exists', 3, '0:0:1', 1],
    ],
  )
  const small = parseBtf(minimizeBtf(kernel, [object]))
  t.same(
    outcomes(object, kernel).map((outcome) => (outcome as { is: string }).is),
    ['ok', 'absent'],
  )
  t.same(outcomes(object, small), outcomes(object, kernel))
  t.end()
})

t.test('minimised BTF of a 32-bit kernel says that its pointers have 4 bytes', (t) => {
  const long = { ...INT, id: 2, name: 'long unsigned int', signed: false }
  const types = [INT, long, reference('PTR', 3, '', 1), struct(4, 's', [['p', 3]])]
  const kernel = parseBtf(encodeBtf(types))
  const object = objectOf(
    [INT, reference('PTR', 2, '', 1), { ...struct(3, 's', [['p', 2]]), size: 8 } as BtfType],
    [['byte_sz', 3, '0:0', 8]],
  )
  const small = parseBtf(minimizeBtf(kernel, [object]))
  t.same(outcomes(object, kernel), [{ is: 'ok', old: 8n, new: 4n }])
  t.same(outcomes(object, small), outcomes(object, kernel))
  t.equal(small.pointerSize, 4)
  t.end()
})

/** A kernel as pahole wrote it before kind_flag: each bitfield has an INT of its width. */
function withoutFlags(kernel: Btf): Btf {
  const ints: BtfType[] = []
  const widths = new Map<string, number>()
  const narrow = ({ type, bitfieldSize: bits }: Member): number => {
    const id = resolve(kernel, type)
    const of = kernel.type(id)
    const signed = (of.kind === 'INT' || of.kind === 'ENUM') && of.signed
    const size = sizeOf(kernel, id)!
    const key = `${id} ${bits}`
    const known = widths.get(key) ?? kernel.endId + ints.length
    if (!widths.has(key)) {
      const rest = { kind: 'INT', name: of.name, char: false, bool: false, bitOffset: 0 } as const
      ints.push({ ...rest, id: known, size, signed, bits })
      widths.set(key, known)
    }
    return known
  }
  const types = [...kernel.types()].map((type): BtfType => {
    if ((type.kind !== 'STRUCT' && type.kind !== 'UNION') || !type.flag) return type
    const members = type.members.map((member) =>
      member.bitfieldSize > 0 ? { ...member, type: narrow(member), bitfieldSize: 0 } : member,
    )
    return { ...type, flag: false, members }
  })
  const { byteOrder, pointerSize } = kernel
  return parseBtf(encodeBtf([...types, ...ints], { byteOrder }), { pointerSize })
}

t.test(
  'minimizeBtf keeps bitfields from before kind_flag, which bpftool 7.1 rejects',
  async (t) => {
    const folder = t.testdir()
    const [file, theirs, ours] = [join(folder, 'old'), join(folder, 'theirs'), join(folder, 'ours')]
    const harness = await buildRelocate(folder)
    const path = little.get('bitfield')!
    const object = openObject(readFileSync(path))
    for (const now of littleKernels().values()) {
      const kernel = withoutFlags(readBtf(readFileSync(now)))
      const { pointerSize } = kernel
      const title = basename(now)
      t.ok(compareLayouts(readBtf(readFileSync(now)), kernel).different.length === 0, title)
      writeFileSync(file, kernel.bytes)
      const libbpf = await relocateWithLibbpf([harness], path, file)
      t.same(
        differences(libbpf, relocate(object, readBtf(readFileSync(file)))),
        [],
        'libbpf decides the same',
      )

      writeFileSync(ours, minimizeBtf(kernel, [object]))
      const small = readBtf(readFileSync(ours), { pointerSize })
      t.same(
        outcomes(object, small),
        outcomes(object, kernel),
        'every relocation has the same result',
      )
      t.ok([...small.types()].every((type) => !('flag' in type) || !type.flag))
      t.match(await minimizeWithBpftool(file, [path], theirs), /Invalid argument/)
    }
  },
)

t.test(
  'minimizeBtf keeps a TYPE_TAG on the way to a type, which bpftool 7.1 cannot keep',
  async (t) => {
    const folder = t.testdir()
    const [file, theirs] = [join(folder, 'tagged.btf'), join(folder, 'theirs.btf')]
    // typedef struct __key_reference_with_attributes __rcu *key_ref_t, of the object `forward`
    const path = little.get('forward')!
    const object = openObject(readFileSync(path))
    const kernel = parseBtf(
      encodeBtf([
        { kind: 'STRUCT', id: 1, name: '__key_reference_with_attributes', size: 0, ...NONE },
        { kind: 'TYPE_TAG', id: 2, name: 'rcu', type: 1, flag: false },
        { kind: 'PTR', id: 3, name: '', type: 2, flag: false },
        { kind: 'TYPEDEF', id: 4, name: 'key_ref_t', type: 3, flag: false },
      ]),
      { pointerSize: 8 },
    )
    writeFileSync(file, kernel.bytes)
    t.match(await minimizeWithBpftool(file, [path], theirs), /unsupported kind: type_tag/)
    const small = parseBtf(minimizeBtf(kernel, [object]), { pointerSize: 8 })
    t.same(small.kinds(), ['PTR', 'STRUCT', 'TYPEDEF', 'TYPE_TAG'])
    t.same(outcomes(object, small), outcomes(object, kernel))
    const harness = await buildRelocate(folder)
    const libbpf = await relocateWithLibbpf([harness], path, file)
    t.same(
      differences(libbpf, relocate(object, readBtf(readFileSync(file)))),
      [],
      'libbpf decides the same',
    )
  },
)

const NONE = { flag: false, members: [] } as const
