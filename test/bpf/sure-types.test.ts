// Partial BTF against what the kernel itself may have: less than the headers declare, or a type of that name twice.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  type Btf,
  type BtfType,
  type Check,
  checkObject,
  encodeBtf,
  openObject,
  parseBtf,
  readBtf,
} from '../../bpf/index.ts'
import { sureTypes } from '../../bpf/sure-types.ts'
import { coreObjects, littleKernels, wholeKernel } from '../helpers/core.ts'

const part = wholeKernel(readBtf(readFileSync(littleKernels().get('x86_64')!)))
const types = [...part.types()]
const objects = [...coreObjects('el')].map(([name, path]) => {
  const object = openObject(readFileSync(path))
  return { name, object, ours: checkObject(object, part, { partial: true }) }
})

const encoded = (all: readonly BtfType[]): Btf => parseBtf(encodeBtf(all, { byteOrder: 'little' }))

const isSure = (btf: Btf, name: string) => sureTypes(btf)[btf.find(name)!] === 1

/** Names of types that the kernel may lack. */
const doubtful = new Set(
  types.filter(({ id, name }) => name !== '' && !sureTypes(part)[id]).map(({ name }) => name),
)

/** A type of the same name whose fields or values are others. */
function otherOf(type: BtfType, id: number): BtfType[] {
  if (type.kind === 'ENUM')
    return [{ ...type, id, values: type.values.map((one) => ({ ...one, value: 99 })) }]
  if (type.kind !== 'STRUCT') return []
  const members = type.members.map((member) => ({ ...member, bitOffset: member.bitOffset + 64 }))
  return [{ ...type, id, size: type.size + 8, members }]
}

/** What partial BTF says yes to, and the kernel does not. */
function wrong(ours: Check, theirs: Check): string[] {
  const parts = [
    { name: 'object', ours, theirs },
    ...ours.programs.map((one, n) => ({ name: one.name, ours: one, theirs: theirs.programs[n]! })),
  ]
  return parts.flatMap(({ name, ours, theirs }) =>
    (['verdict', 'loads'] as const)
      .filter((kind) => ours[kind] === 'yes' && theirs[kind] !== 'yes')
      .map((kind) => `${name}: ${kind}`),
  )
}

const wrongIn = (kernel: Btf): string[] =>
  objects.flatMap(({ name, object, ours }) =>
    wrong(ours, checkObject(object, kernel)).map((what) => `${name}: ${what}`),
  )

t.test('check gives yes nowhere if the kernel lacks a type that headers declare', (t) => {
  t.ok(doubtful.size > 50)
  for (const name of doubtful) {
    const renamed = (type: BtfType) => ({ ...type, name: `no_${name}` }) as BtfType
    const kernel = encoded(types.map((type) => (type.name === name ? renamed(type) : type)))
    t.same(wrongIn(kernel), [], name)
  }
  t.end()
})

t.test('check gives yes nowhere if the kernel has another type of the same name', (t) => {
  for (const name of doubtful) {
    const first = types.find((type) => type.name === name)!
    t.same(wrongIn(encoded([...types, ...otherOf(first, types.length + 1)])), [], name)
  }
  t.end()
})

t.test('check gives yes where all types are reached from task_struct', (t) => {
  const verdicts = new Map(objects.map(({ name, ours }) => [name, ours.verdict]))
  t.match(Object.fromEntries(verdicts), { plain: 'yes', task: 'yes' })
  const exists = objects.find(({ name }) => name === 'exists')!.ours
  const either = exists.programs.find(({ name }) => name === 'either')
  t.equal(either?.loads, 'yes', 'a field that task_struct lacks in headers is not in the kernel')
  t.end()
})

t.test('the kernel gives a type another id than partial BTF does', (t) => {
  const { ours } = objects.find(({ name }) => name === 'type')!
  const ids = ours.programs.flatMap(({ relocations, reasons }) =>
    relocations
      .filter(({ kind }) => kind === 'target_type_id')
      .map(({ instruction }) => reasons.find((reason) => reason.instruction === instruction)),
  )
  t.ok(ids.length > 0)
  for (const reason of ids) t.match(reason, { code: 'not_covered', verdict: 'cannot_tell' })
  t.end()
})

t.test(
  'trace events vouch for the types of their subsystem, and for no other architecture',
  (t) => {
    const struct = (name: string, id: number): BtfType => ({
      ...{ kind: 'STRUCT', id, name, size: 0, flag: false, members: [] },
    })
    const btf = (...names: string[]) => encoded(names.map((name, n) => struct(name, n + 1)))
    t.notOk(isSure(btf('tcp_sock'), 'tcp_sock'))
    t.ok(isSure(btf('tcp_sock', 'trace_event_raw_tcp_event_sk'), 'tcp_sock'))
    t.ok(isSure(btf('trace_event_raw_sys_enter'), 'trace_event_raw_sys_enter'))
    t.notOk(
      isSure(btf('trace_event_raw_ipi_raise'), 'trace_event_raw_ipi_raise'),
      'only arm has it',
    )
    t.notOk(isSure(btf('task_struct', 'wifi'), 'wifi'))
    t.end()
  },
)
