// What checkObject decides besides relocations: attach targets, kfuncs, helpers, maps and types.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  type BpfObject,
  type Check,
  checkObject,
  encodeBtf,
  openObject,
  parseBtf,
  readBtf,
} from '../../bpf/index.ts'
import { writeInstruction } from '../../bpf/instruction.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'

const kernel = readBtf(readFileSync(littleKernels().get('x86_64')!))
const objectOf = (name: string, order: 'el' | 'eb' = 'el') =>
  openObject(readFileSync(coreObjects(order).get(name)!))

const codesOf = ({ programs }: Check): Record<string, string> =>
  Object.fromEntries(
    programs.map(({ name, reasons }) => [name, reasons.map(({ code }) => code).join()]),
  )

t.test('each program is looked up by what it is attached to and what it calls', (t) => {
  for (const [order, machine] of [
    ['el', 'x86_64'],
    ['eb', 's390x'],
  ] as const) {
    const small = readBtf(readFileSync(littleKernels().get(machine)!))
    const check = checkObject(objectOf('attach', order), small)
    for (const { name, verdict, reasons } of check.programs) {
      const [expected] = name.split('_')
      const found = { yes: 'there', no: 'missing', cannot_tell: 'untold' }[verdict]
      t.equal(found, expected, `${name}: ${reasons.map(({ message }) => message).join()}`)
    }
    t.equal(check.loads, 'no')
  }
  t.same(codesOf(checkObject(objectOf('attach'), kernel)), {
    there_function: '',
    missing_function: 'missing_target',
    missing_hook: 'missing_target',
    there_tracepoint: '',
    missing_tracepoint: 'missing_target',
    missing_raw_tracepoint: 'missing_target',
    missing_iterator: 'missing_target',
    there_probe: '',
    untold_probe: 'missing_target',
    untold_target: 'unknown_target',
    untold_section: 'unknown_target',
    missing_helper: 'missing_helper',
    there_guarded_helper: '',
    there_guarded_kfunc: '',
    missing_kfunc: 'missing_kfunc',
  })
  t.end()
})

t.test(
  'a tracepoint or function that is only missed when it is attached does not keep from loading',
  (t) => {
    const { programs } = checkObject(objectOf('attach'), kernel)
    for (const name of ['missing_raw_tracepoint', 'untold_probe']) {
      t.equal(programs.find((program) => program.name === name)!.loads, 'yes', name)
    }
    t.end()
  },
)

t.test(
  'a strong kfunc and a map of a type that the kernel lacks are reasons of the object',
  (t) => {
    const check = checkObject(objectOf('kfunc'), kernel)
    t.match(check, {
      loads: 'no',
      reasons: [
        { code: 'missing_map_type', message: /future has type 999/ },
        { code: 'missing_kfunc', message: 'this kernel has no bpf_no_such_kfunc' },
      ],
    })
    t.end()
  },
)

t.test('what needs BTF of the kernel itself fails where there is none', (t) => {
  const check = checkObject(objectOf('attach'), kernel, { hasOwnBtf: false })
  const codes = codesOf(check)
  for (const name of ['there_function', 'there_tracepoint', 'missing_hook', 'missing_iterator']) {
    t.equal(codes[name], 'no_kernel_btf', name)
  }
  t.equal(codes.there_probe, '')
  t.match(check.reasons, [{ code: 'no_kernel_btf', message: /bpf_no_such_kfunc/ }])
  t.equal(checkObject(objectOf('plain'), kernel, { hasOwnBtf: false }).loads, 'yes')
  t.end()
})

t.test('a kernel whose BTF has no list of helpers or types cannot be told about', (t) => {
  const empty = parseBtf(encodeBtf([]))
  const check = checkObject(objectOf('plain'), empty)
  t.equal(check.loads, 'cannot_tell')
  t.ok(check.programs.every(({ reasons }) => reasons.every((one) => one.verdict !== 'no')))
  t.end()
})

t.test(
  'an atomic instruction that asks for the old value needs the verifier of Linux 5.12',
  (t) => {
    const section = 'socket'
    const rows = [
      [0xb7, 1, 0, 0, 1], // r1 = 1
      [0x7b, 10, 1, -8, 0], // *(u64 *)(r10 - 8) = r1
      [0xdb, 10, 1, -8, 0], // lock *(u64 *)(r10 - 8) += r1
      [0xdb, 10, 1, -8, 1], // r1 = atomic_fetch_add(r10 - 8, r1)
      [0xb7, 0, 0, 0, 0],
      [0x95, 0, 0, 0, 0],
    ]
    const code = new Uint8Array(rows.length * 8)
    for (const [n, [operation, destination, source, offset, immediate]] of rows.entries())
      writeInstruction(code, n * 8, 'little', {
        ...{ code: operation!, destination: destination!, source: source!, offset: offset! },
        immediate: immediate!,
      })
    const object: BpfObject = {
      byteOrder: 'little',
      btf: parseBtf(encodeBtf([])),
      ext: { functions: [], lines: [], relocations: [] },
      programs: [{ name: 'count', section, offset: 0, size: code.length, global: true }],
      calls: [],
      code: new Map([[section, code]]),
      references: new Map(),
      externs: [],
      constants: new Map(),
    }
    const reasonsOn = (functionName: string, helper: number) => {
      const values = [{ name: 'helper', value: helper }]
      const kernel = encodeBtf([
        { kind: 'ENUM', id: 1, name: 'bpf_func_id', size: 4, signed: false, values },
        { kind: 'FUNC_PROTO', id: 2, name: '', type: 0, parameters: [] },
        { kind: 'FUNC', id: 3, name: functionName, type: 2, linkage: 'static' },
      ])
      const { programs } = checkObject(object, parseBtf(kernel))
      const found = programs[0]!.reasons.filter(({ code }) => code === 'missing_instruction')
      return found.map(({ verdict, instruction }) => `${verdict} at ${instruction}`)
    }
    t.same(reasonsOn('check_xadd', 162), ['no at 3'])
    t.same(reasonsOn('check_atomic', 162), [])
    t.same(reasonsOn('inlined', 163), [])
    t.same(reasonsOn('inlined', 162), ['cannot_tell at 3'])
    t.end()
  },
)
