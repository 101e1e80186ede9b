import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  type BpfObject,
  type BpfProgram,
  type Btf,
  checkObject,
  encodeBtf,
  openObject,
  parseBtf,
  readBtf,
} from '../../bpf/index.ts'
import { type Instruction, writeInstruction } from '../../bpf/instruction.ts'
import { Reachability } from '../../bpf/reachability.ts'
import { coreObjects, littleKernels, wholeKernel } from '../helpers/core.ts'

type Row = [
  code: number,
  destination?: number,
  source?: number,
  offset?: number,
  immediate?: number,
]

/** The reachability of each instruction of a `raw_tp` program, as a letter: never, always, maybe. */
const reach = (...rows: Row[]): string => reachOf(rows)

function reachOf(rows: readonly Row[]): string {
  const code = new Uint8Array(rows.length * 8)
  rows.forEach(([op, destination = 0, source = 0, offset = 0, immediate = 0], i) => {
    const instruction: Instruction = { code: op, destination, source, offset, immediate }
    writeInstruction(code, i * 8, 'little', instruction)
  })
  const program: BpfProgram = {
    name: 'p',
    section: 'raw_tp',
    offset: 0,
    size: code.length,
    global: true,
  }
  const object: BpfObject = {
    byteOrder: 'little',
    btf: parseBtf(encodeBtf([])),
    ext: { functions: [], lines: [], relocations: [] },
    programs: [program],
    calls: [],
    references: new Map(),
    externs: [],
    constants: new Map(),
    code: new Map([['raw_tp', code]]),
  }
  const reachability = new Reachability(object, object.code, [program], () => ({ is: 'unknown' }))
  return rows.map((_, i) => reachability.of(program, i).is[0]).join('')
}

const MOV = 0xb7
const JEQ = 0x15
const EXIT: Row = [0x95]

t.test('a branch on a constant has one successor', (t) => {
  t.equal(reach([MOV, 1, 0, 0, 0], [JEQ, 1, 0, 1, 0], [MOV, 2], EXIT), 'aana')
  t.equal(reach([MOV, 1, 0, 0, 1], [JEQ, 1, 0, 1, 0], [MOV, 2], EXIT), 'aaaa')
  t.equal(reach([JEQ, 1, 0, 1, 0], [MOV, 2], EXIT), 'aaa', 'a branch on an unknown value has two')
  t.equal(reach([0x45, 1, 0, 2, 0], [MOV, 2], EXIT, [MOV, 2], EXIT), 'aaann', 'no bit of 0')
  t.end()
})

t.test('constants are followed through moves, arithmetic, 32-bit comparison and the stack', (t) => {
  const zero: Row = [MOV, 1, 0, 0, 0]
  t.equal(reach(zero, [0xbf, 3, 1], [JEQ, 3, 0, 1, 0], [MOV, 2], EXIT), 'aaana', 'r3 = r1')
  t.equal(reach(zero, [0x07, 1, 0, 0, 5], [JEQ, 1, 0, 1, 5], [MOV, 2], EXIT), 'aaana', 'r1 += 5')
  t.equal(reach([MOV, 1, 0, 0, -1], [0x16, 1, 0, 1, -1], [MOV, 2], EXIT), 'aana', 'w1 == -1')
  const spill: Row = [0x7b, 10, 1, -8]
  const fill: Row = [0x79, 4, 10, -8]
  t.equal(reach(zero, spill, fill, [JEQ, 4, 0, 1, 0], [MOV, 2], EXIT), 'aaaana', 'spilled')
  const lost: Row[] = [
    [0xbf, 2, 10],
    [0x0f, 2, 3],
    [0x7b, 2, 3, 0],
  ]
  const after = reach(zero, spill, ...lost, fill, [JEQ, 4, 0, 1, 0], [MOV, 2], EXIT)
  t.equal(after, 'aaaaaaamm', 'a store at an unknown place of the stack may change the slot')
  const call: Row = [0x85, 0, 0, 0, 1]
  t.equal(
    reach([MOV, 6], call, [JEQ, 6, 0, 1, 0], [MOV, 2], EXIT),
    'aaana',
    'a call does not change r6',
  )
  t.end()
})

t.test('where paths meet only values that are equal on both are known', (t) => {
  const different = reach(
    [MOV, 6, 0, 0, 0],
    [JEQ, 1, 0, 1, 0],
    [MOV, 6, 0, 0, 1],
    [JEQ, 6, 0, 1, 0],
    [MOV, 2],
    EXIT,
  )
  t.equal(different, 'aaaaaa')
  const loop = reach([MOV, 6, 0, 0, 0], [0x07, 6, 0, 0, 1], [0x55, 6, 0, -2, 9], EXIT)
  t.equal(loop, 'aaaa')
  t.end()
})

t.test('a program with more paths than can be explored still has unreachable code', (t) => {
  const rows: Row[] = [[MOV, 6, 0, 0, 0]]
  // each branch doubles the states: a sum of different numbers on every path
  for (let n = 0; n < 40; n++) {
    rows.push([0x85, 0, 0, 0, 7], [JEQ, 0, 0, 1, 0], [0x07, 7, 0, 0, 2 ** (n % 30)])
    for (let pad = 0; pad < 700; pad++) rows.push([0x07, 8, 0, 0, n + 1])
  }
  rows.splice(1, 0, [MOV, 7], [MOV, 8])
  rows.push([0x7b, 10, 7, -8], [0x7b, 10, 8, -16], [JEQ, 6, 0, 1, 0], [MOV, 2], EXIT)
  const reached = reach(...rows)
  t.equal(reached.at(-2), 'n')
  t.equal(reached.at(-1), 'a')
  t.end()
})

t.test('a program that is made to cost time or memory is explored in bounded work', (t) => {
  const count = 150_000
  // the last instruction leads back to the first, one step at a time
  const back: Row[] = [[0x06, 0, 0, 0, count], EXIT]
  for (let n = 0; n < count; n++) back.push([0x05, 0, 0, -2])
  t.equal(reachOf(back).replaceAll('a', ''), '')
  // each state has as many stack slots as offsets reach
  const wide: Row[] = []
  for (let n = 1; n <= 4000; n++) wide.push([0x7a, 10, 0, -8 * n, n])
  for (let n = 0; n < 3000; n++)
    wide.push([0x85, 0, 0, 0, 7], [JEQ, 0, 0, 0, n], [0x07, 7, 0, 0, n])
  t.match(reach(...wide, EXIT), /^a+$/)
  t.end()
})

t.test('code that jumps out of its program is not judged', (t) => {
  t.equal(reach([0x05, 0, 0, 100], EXIT), 'mm')
  t.equal(reach([MOV, 1]), 'm')
  t.end()
})

const smallKernel = (machine: string, ...functions: string[]) =>
  wholeKernel(readBtf(readFileSync(littleKernels().get(machine)!)), functions)

for (const order of ['el', 'eb'] as const) {
  t.test(`checkObject answers as the kernel does for every branch and call, ${order}`, (t) => {
    const object = openObject(readFileSync(coreObjects(order).get('reachability')!))
    const answers = (kernel: Btf) =>
      new Map(checkObject(object, kernel).programs.map(({ name, loads }) => [name, loads]))
    const kernels =
      order === 'el'
        ? { without: smallKernel('x86_64'), with: smallKernel('x86_64', 'bpf_task_acquire') }
        : { without: smallKernel('s390x'), with: undefined }
    const without = answers(kernels.without)
    t.equal(without.get('in_callback'), 'no')
    t.equal(without.get('inner'), 'no', 'a function that a callback calls')
    for (const [name, loads] of without) {
      if (/^(loads|refused)_/.test(name)) t.equal(loads === 'yes', name.startsWith('loads'), name)
    }
    t.equal(answers(kernels.without).get('if_kfunc_is_there'), 'yes')
    t.equal(answers(kernels.without).get('if_kfunc_is_missing'), 'no')
    if (kernels.with) {
      t.equal(answers(kernels.with).get('if_kfunc_is_there'), 'no')
      t.equal(answers(kernels.with).get('if_kfunc_is_missing'), 'yes')
    }
    const all = checkObject(object, kernels.without, { allPrograms: true })
    t.equal(all.programs.find(({ name }) => name === 'loads_optional')!.loads, 'no')
    t.end()
  })
}
