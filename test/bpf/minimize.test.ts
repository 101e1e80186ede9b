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
        t.same(compareGraphs(await dumpTypes(theirs), await dumpTypes(ours)), [], title)
        if (kernel.byteOrder === 'little')
          t.ok(readFileSync(theirs).equals(minimized), 'the bytes are equal too')
        equal++
      }
    }
    t.equal(equal, little.size - 2)
  }
})

t.test('minimizeBtf for several objects keeps what bpftool keeps for them', async (t) => {
  const [file] = kernels
  const paths = ['task', 'bitfield', 'enum', 'match', 'type'].map((name) => little.get(name)!)
  const theirs = join(t.testdir(), 'theirs.btf')
  t.equal(await minimizeWithBpftool(file!, paths, theirs), undefined)
  const objects = paths.map((path) => openObject(readFileSync(path)))
  t.ok(readFileSync(theirs).equals(minimizeBtf(readBtf(readFileSync(file!)), objects)))
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
        const { pointerSize } = kernel
        const small = parseBtf(minimized, { pointerSize })
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

t.test('minimizeBtf for an object without relocations gives BTF without types', (t) => {
  const minimized = minimizeBtf(readBtf(readFileSync(kernels[0]!)), [
    openObject(readFileSync(little.get('plain')!)),
  ])
  t.equal(parseBtf(minimized).typeCount, 0)
  t.equal(minimized.length, 25)
  t.end()
})

t.test('minimizeBtf keeps every candidate of one name that some relocation needs', (t) => {
  const int: BtfType = {
    kind: 'INT',
    id: 1,
    name: 'int',
    size: 4,
    signed: true,
    char: false,
    bool: false,
    bits: 32,
    bitOffset: 0,
  }
  const struct = (id: number, ...names: string[]): BtfType => ({
    kind: 'STRUCT',
    id,
    name: 's',
    size: 8,
    flag: false,
    members: names.map((name, i) => ({ name, type: 1, bitOffset: i * 32, bitfieldSize: 0 })),
  })
  const kernel = parseBtf(encodeBtf([int, struct(2, 'a'), struct(3, 'a', 'b')]))
  const relocation = (index: number): CoreRelocation => {
    const section = 'raw_tp'
    return { section, index, offset: index * 8, type: 2, access: `0:${index}`, kind: 'byte_off' }
  }
  const object: BpfObject = {
    byteOrder: 'little',
    btf: parseBtf(encodeBtf([int, struct(2, 'a', 'b')]), { pointerSize: 8 }),
    ext: { functions: [], lines: [], relocations: [relocation(0), relocation(1)] },
    programs: [{ name: 'program', section: 'raw_tp', offset: 0, size: 16, global: true }],
    calls: [],
    // r0 += 0; r0 += 4
    code: new Map([['raw_tp', Buffer.from('07000000000000000700000004000000', 'hex')]]),
  }
  const small = parseBtf(minimizeBtf(kernel, [object]))
  t.same(outcomes(object, kernel), [
    { is: 'ok', old: 0n, new: 0n },
    { is: 'ok', old: 4n, new: 4n },
  ])
  t.same(outcomes(object, small), outcomes(object, kernel), 'bpftool would poison the second')
  t.equal(small.countOf('STRUCT'), 2)
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
