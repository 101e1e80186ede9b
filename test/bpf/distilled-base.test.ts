import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  BtfError,
  type BtfType,
  encodeBtf,
  parseBtf,
  readBtf,
  relocateBase,
} from '../../bpf/index.ts'
import { distilledCases } from '../helpers/distilled.ts'

const folder = join(import.meta.dirname, '../fixtures/cases/distilled-base')
/** libbpf's result for each case: bytes in hex, or `refused` */
const results: Record<string, string> = JSON.parse(
  readFileSync(join(folder, 'results.json'), 'utf8'),
)
const module = readFileSync(join(folder, 'mymod-distilled.ko'))

/** The bytes of the result in hex, or the code of the error. */
function relocated(work: () => Uint8Array): string {
  try {
    return Buffer.from(work()).toString('hex')
  } catch (error) {
    if (error instanceof BtfError) return error.code
    throw error
  }
}

t.test('a module is relocated onto the kernel byte for byte as by libbpf, or refused', (t) => {
  t.same(
    Object.keys(results),
    distilledCases.map(({ title }) => title),
  )
  for (const { title, kernel, base, split } of distilledCases) {
    const opened = parseBtf(split, { base: parseBtf(base) })
    const result = relocated(() => relocateBase(opened, kernel))
    if (results[title] === 'refused') {
      t.match(result, /^(?:base_mismatch|invalid_type|invalid_name)$/, title)
      continue
    }
    t.equal(result, results[title], title)
    const over = parseBtf(Buffer.from(result, 'hex'), { base: kernel })
    t.equal(over.typeCount, opened.typeCount)
    t.ok(
      opened.bytes.every((byte, i) => byte === split[i]),
      'the input is not changed',
    )
  }
  t.end()
})

const INT = { kind: 'INT', signed: true, char: false, bool: false, bitOffset: 0 } as const
/** The types of the kernel that the module in the fixture refers to, with this size of `list_head`. */
const kernelWith = (size: number) => {
  const pointer = (name: string, at: number) => {
    return { name, type: 5, bitOffset: at * 64, bitfieldSize: 0 }
  }
  const types: BtfType[] = [
    { ...INT, id: 1, name: 'long unsigned int', size: 8, signed: false, bits: 64 },
    { kind: 'STRUCT', id: 2, name: 'task_struct', size: 8000, flag: false, members: [] },
    { ...INT, id: 3, name: 'int', size: 4, bits: 32 },
    {
      ...{ kind: 'STRUCT', id: 4, name: 'list_head', size, flag: false },
      members: [pointer('next', 0), pointer('prev', 1)],
    },
    { kind: 'PTR', id: 5, name: '', type: 4, flag: false },
  ]
  return parseBtf(encodeBtf(types), { pointerSize: 8 })
}

t.test("readBtf gives a module with a distilled base over the kernel's BTF", (t) => {
  const base = kernelWith(16)
  const btf = readBtf(module, { base })
  const state = btf.type(btf.find('mymod_state', 'STRUCT')!)
  t.match(state, {
    members: [
      { name: 'node', type: base.find('list_head') },
      { name: 'count', type: base.find('int', 'INT') },
      { name: 'owner' },
      { name: 'flags', type: base.find('long unsigned int') },
    ],
  })
  t.equal(btf.base, base)
  t.equal(btf.startId, base.endId)
  t.ok(btf.find('mymod_init', 'FUNC'))

  const alone = readBtf(module)
  t.match([...alone.base!.types()].map(({ name }) => name).sort(), [
    'int',
    'list_head',
    'long unsigned int',
    'task_struct',
  ])
  t.ok(alone.find('mymod_state', 'STRUCT'), 'without a kernel it stands on its distilled base')
  t.end()
})

t.test('a module that was built for another kernel is refused with the type that differs', (t) => {
  t.throws(() => readBtf(module, { base: kernelWith(24) }), {
    code: 'base_mismatch',
    message:
      'the kernel has no STRUCT list_head that fits 16 bytes: the module was built for another kernel',
  })
  t.throws(() => readBtf(module, { base: parseBtf(encodeBtf([])) }), {
    code: 'base_mismatch',
    message: /^the kernel has no (?:INT|STRUCT|FWD) /,
  })
  t.end()
})
