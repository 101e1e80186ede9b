import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import {
  type Btf,
  type BtfType,
  compareLayouts,
  DIALECTS,
  type Dialect,
  diffBtf,
  encodeBtf,
  openObject,
  parseBtf,
  readBtf,
  relocate,
  sizeOf,
  toDialect,
} from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { bpftoolDump, dump, fixture, fixtureFolder, fixtureNames } from '../helpers/fixtures.ts'
import { differences } from './oracle/agreement.ts'
import { buildRelocate, relocateWithLibbpf } from './oracle/libbpf.ts'

/** The dialects that keep the order of types. */
const dialects = (Object.keys(DIALECTS) as Dialect[]).filter((name) => name !== 'libbpf-1.7')
const files = [
  ...fixtureNames(/^types-/).map((name) => fixtureFolder + name),
  ...littleKernels().values(),
]

/** The kinds after BTF's first 15, and their replacements. */
const REPLACED = new Map([
  ['FLOAT', 'STRUCT'],
  ['DECL_TAG', 'INT'],
  ['TYPE_TAG', 'CONST'],
  ['ENUM64', 'ENUM'],
])
const MISSING: Record<Dialect, readonly string[]> = {
  'libbpf-0.3': ['FLOAT', 'DECL_TAG', 'TYPE_TAG', 'ENUM64'],
  'libbpf-0.5': ['DECL_TAG', 'TYPE_TAG', 'ENUM64'],
  'libbpf-0.8': ['ENUM64'],
  'libbpf-1.0': [],
  'libbpf-1.7': [],
  'cilium-0.6': ['FLOAT', 'DECL_TAG', 'TYPE_TAG', 'ENUM64'],
  'cilium-0.9.1': ['DECL_TAG', 'TYPE_TAG', 'ENUM64'],
  'cilium-0.9.3': ['ENUM64'],
  'cilium-0.21': [],
}

/** The types of a dialect that are neither unchanged nor a replacement of equal size. */
function unlike(full: Btf, btf: Btf, missing: readonly string[]): string[] {
  return [...full.types()].flatMap((type) => {
    const now = btf.type(type.id)
    if (!missing.includes(type.kind)) {
      return isDeepStrictEqual(now, type) ? [] : [`${type.id} changed`]
    }
    const size = type.kind === 'DECL_TAG' ? 1 : sizeOf(full, type.id)
    const right = now.kind === REPLACED.get(type.kind) && sizeOf(btf, type.id) === size
    return right ? [] : [`${type.id} ${type.kind} is ${now.kind}`]
  })
}

t.test('a dialect keeps every type id and size, and bpftool reads the same types', (t) => {
  const path = join(t.testdir(), 'dialect.btf')
  for (const file of files) {
    const full = readBtf(readFileSync(file))
    for (const dialect of dialects) {
      const title = `${basename(file)} for ${dialect}`
      const btf = parseBtf(toDialect(full, dialect), { pointerSize: full.pointerSize })
      t.same(
        btf.kinds().filter((kind) => MISSING[dialect].includes(kind)),
        [],
        title,
      )
      t.equal(btf.typeCount, full.typeCount)
      t.same(unlike(full, btf, MISSING[dialect]), [])
      const { different, missing } = compareLayouts(full, btf)
      t.same([...different, ...missing], [])
      writeFileSync(path, btf.bytes)
      t.equal(bpftoolDump(path), dump(btf))
    }
    t.ok(
      Buffer.from(full.bytes).equals(toDialect(full, 'libbpf-1.0')),
      'the last is what pahole and clang 14 write',
    )
  }
  t.end()
})

t.test(
  'CO-RE objects relocate against a dialect as before, except values that no ENUM can hold',
  async (t) => {
    const folder = t.testdir()
    const path = join(folder, 'dialect.btf')
    const harness = await buildRelocate(folder)
    const objects = [...coreObjects('el').values()].map((file) => {
      return { file, opened: openObject(readFileSync(file)) }
    })
    const lost = new Set<string>()
    for (const file of littleKernels().values()) {
      const full = readBtf(readFileSync(file))
      const whole = objects.map(({ opened }) => relocate(opened, full).relocations)
      for (const dialect of dialects) {
        const btf = parseBtf(toDialect(full, dialect), { pointerSize: full.pointerSize })
        for (const [n, { opened }] of objects.entries()) {
          relocate(opened, btf).relocations.forEach(({ relocation, outcome }, i) => {
            if (isDeepStrictEqual(outcome, whole[n]![i]!.outcome)) return
            const { type, access, kind } = relocation
            lost.add(`${outcome.is}: ${opened.btf.name(type)} ${access} ${kind}`)
          })
        }
      }
      // libbpf agrees for the dialect with the fewest kinds
      writeFileSync(path, toDialect(full, 'libbpf-0.3'))
      const oldest = readBtf(readFileSync(path), { pointerSize: full.pointerSize })
      for (const { file: object, opened } of objects) {
        const theirs = await relocateWithLibbpf([harness], object, path)
        t.same(differences(theirs, relocate(opened, oldest)), [], basename(object))
      }
    }
    t.same([...lost].sort(), [
      'absent: perf_callchain_context 0 type_matches',
      'absent: perf_event_sample_format 1 enumval_exists',
      'poisoned: perf_callchain_context 0 enumval_value',
      'poisoned: perf_callchain_context 1 enumval_value',
      'poisoned: perf_event_sample_format 1 enumval_value',
    ])
  },
)

t.test('each newer kind becomes its documented replacement', (t) => {
  const values = [
    { name: 'MINUS', value: -1n },
    { name: 'LEAST', value: -(2n ** 31n) },
    { name: 'MOST', value: 2n ** 31n - 1n },
    { name: 'LESS', value: -(2n ** 31n) - 1n },
    { name: 'MORE', value: 2n ** 31n },
  ]
  const types: BtfType[] = [
    { kind: 'FLOAT', id: 1, name: 'double', size: 8 },
    { kind: 'PTR', id: 2, name: '', type: 3, flag: false },
    { kind: 'TYPE_TAG', id: 3, name: 'user', type: 1, flag: true },
    { kind: 'ENUM64', id: 4, name: 'large', size: 8, signed: true, values },
    { kind: 'DECL_TAG', id: 5, name: 'long', type: 4, component: -1, flag: false },
  ]
  const btf = parseBtf(encodeBtf(types, { byteOrder: 'big' }))
  const old = parseBtf(toDialect(btf, 'libbpf-0.3'))
  t.equal(old.byteOrder, 'big')
  t.same(dump(old).split('\n'), [
    "[1] STRUCT '(anon)' size=8 vlen=0",
    "[2] PTR '(anon)' type_id=3",
    "[3] CONST '(anon)' type_id=1",
    "[4] ENUM 'large' encoding=SIGNED size=8 vlen=3",
    "\t'MINUS' val=-1",
    "\t'LEAST' val=-2147483648",
    "\t'MOST' val=2147483647",
    "[5] INT 'long' size=1 bits_offset=0 nr_bits=8 encoding=(none)",
    '',
  ])
  t.equal(old.pointerSize, 8, 'a tag named long does not decide the pointer size')
  t.end()
})

t.test('the dialect of libbpf 1.7 has its types in order of their names, and no others', (t) => {
  const path = join(t.testdir(), 'sorted.btf')
  for (const file of files) {
    const full = readBtf(readFileSync(file))
    const { pointerSize } = full
    const sorted = parseBtf(toDialect(full, 'libbpf-1.7'), { pointerSize })
    const names = [...sorted.types()].map(({ name }) => Buffer.from(name))
    t.ok(
      names.every((name, i) => i === 0 || names[i - 1]!.compare(name) <= 0),
      basename(file),
    )
    t.ok(names[0]!.length === 0 && names.at(-1)!.length > 0)
    const plain = parseBtf(toDialect(full, 'libbpf-1.0'), { pointerSize })
    t.match(diffBtf(plain, sorted), { added: [], removed: [], changed: [] })
    t.same(graphOf(sorted), graphOf(plain), 'types refer to the same types')
    t.same(toDialect(sorted, 'libbpf-1.7'), sorted.bytes, 'sorting again changes nothing')
    writeFileSync(path, sorted.bytes)
    t.equal(bpftoolDump(path), dump(sorted))
  }
  t.end()
})

t.test('CO-RE objects relocate against sorted types as before', (t) => {
  for (const file of littleKernels().values()) {
    const full = readBtf(readFileSync(file))
    const { pointerSize } = full
    const sorted = parseBtf(toDialect(full, 'libbpf-1.7'), { pointerSize })
    for (const object of coreObjects('el').values()) {
      const opened = openObject(readFileSync(object))
      const outcomes = (btf: Btf) =>
        relocate(opened, btf).relocations.map(({ relocation: { kind }, outcome }) =>
          kind === 'target_type_id' ? outcome.is : outcome,
        )
      t.same(outcomes(sorted), outcomes(full), `${basename(object)} on ${basename(file)}`)
    }
  }
  t.end()
})

/** How often each type occurs: its name, and the names of the types that it refers to, in order. */
function graphOf(btf: Btf): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const type of btf.types()) {
    const targets: string[] = []
    renumbered({ ...type, id: 0 }, (id) => {
      targets.push(id === 0 ? '' : `${btf.type(id).kind} ${btf.name(id)}`)
      return id
    })
    const key = `${type.kind} ${type.name} ${btf.vlen(type.id)}: ${targets.join()}`
    counts[key] = (counts[key] ?? 0) + 1
  }
  return counts
}

t.test('a dialect rejects BTF that older versions cannot represent', (t) => {
  const forward = [1, info(7), 0]
  const sizes = new Array(20).fill(0)
  const bytes = craft([...forward, ...sizes], '\0s\0', [12, 80])
  bytes.writeUInt32LE(12, 12)
  const btf = parseBtf(bytes)
  t.equal(btf.header.headerSize, 32)
  t.equal(
    parseBtf(toDialect(btf, 'libbpf-1.0')).header.headerSize,
    24,
    'a layout section is left out',
  )
  const parameters = Array(1 << 16).fill({ name: '', type: 0 })
  const long = parseBtf(encodeBtf([{ kind: 'FUNC_PROTO', id: 1, name: '', type: 0, parameters }]))
  t.throws(() => toDialect(long, 'libbpf-1.0'), { code: 'too_large' })
  const base = parseBtf(fixture('types-x86_64.btf'))
  const split = parseBtf(fixture('module-x86_64.btf'), { base })
  t.throws(() => toDialect(split, 'libbpf-0.5'), { code: 'unsupported' })
  t.end()
})
