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
  encodeBtf,
  openObject,
  parseBtf,
  readBtf,
  relocate,
  sizeOf,
  toDialect,
} from '../../bpf/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { bpftoolDump, dump, fixture, fixtureFolder, fixtureNames } from '../helpers/fixtures.ts'
import { differences } from './oracle/agreement.ts'
import { buildRelocate, relocateWithLibbpf } from './oracle/libbpf.ts'

const dialects = Object.keys(DIALECTS) as Dialect[]
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
