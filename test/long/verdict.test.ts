/*
 * The verdicts of `checkObject` against the running kernel: objects that others wrote, loaded by libbpf, and random
 * programs, loaded as they are. A "no" must not load. A "yes" must not fail for a reason that `check` knows: others are
 * licenses, and a kernel without tracing.
 */
import { execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import t from 'tap'
import {
  type BpfObject,
  type BpfProgram,
  checkObject,
  encodeBtf,
  openObject,
  parseBtf,
  readBtf,
} from '../../bpf/index.ts'
import { POISON, writeInstruction } from '../../bpf/instruction.ts'
import { Reachability } from '../../bpf/reachability.ts'
import { readLoaderReport } from '../../generator/prove/report.ts'
import { knownReasonIn } from '../bpf/oracle/known-reason.ts'
import { objectsOfOthers } from '../bpf/oracle/others.ts'
import { Random } from '../fuzz/random.ts'

const run = promisify(execFile)
const BTF = '/sys/kernel/btf'
const RANDOM_PROGRAMS = 20_000

const directory = t.testdir()
const compile = async (name: string, source: string) => {
  const program = join(directory, name)
  const path = join(import.meta.dirname, '../..', source)
  await run('clang', ['-O1', '-Wall', '-Wextra', '-Werror', path, '-lbpf', '-o', program])
  return program
}
const objectLoader = await compile('object', 'generator/prove/load.c')
const programLoader = await compile('programs', 'test/bpf/oracle/load-programs.c')

/** The result of libbpf for an object, and what it and the verifier said. A program that fails is told alone, too. */
async function loadObject(path: string): Promise<{ loads: boolean; log: string[] }> {
  const loading = run(objectLoader, ['--size-maps', path], { maxBuffer: 1 << 26 })
  const { stdout } = await loading.catch((error: { stdout: string }) => error)
  const report = readLoaderReport(stdout.split('\n'))!
  const log = [report, ...report.programs].flatMap((one) => one.log)
  return { loads: report.error === 0, log }
}

const TRIVIAL = 'b7000000000000009500000000000000'
const isPermitted = existsSync(join(BTF, 'vmlinux')) && (await loadRandom([TRIVIAL]))[0] === 'loads'
const skip = isPermitted ? false : 'this kernel has no BTF, or does not permit bpf(2)'

async function loadRandom(programs: readonly string[]): Promise<string[]> {
  const child = spawn(programLoader, { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(programs.map((program) => `${program}\n`).join(''))
  return (await text(child.stdout)).trimEnd().split('\n')
}

t.test(
  'objects that others wrote load on this kernel where the verdict is yes',
  { skip },
  async (t) => {
    const kernel = readBtf(readFileSync(join(BTF, 'vmlinux')))
    const modules = readdirSync(BTF)
      .filter((name) => name !== 'vmlinux')
      .map((name) => parseBtf(readFileSync(join(BTF, name)), { base: kernel }))
    const release = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim()
    const counts = new Map<string, number>()
    for (const path of await objectsOfOthers()) {
      const object = openObject(readFileSync(path))
      // libbpf does not open objects of the other byte order
      if (object.byteOrder !== kernel.byteOrder) continue
      const { loads: isLoaded, log } = await loadObject(path)
      const check = checkObject(object, kernel, { modules, hasOwnBtf: true, release })
      const { loads } = check
      const outcome = `${loads}, ${isLoaded ? 'loads' : 'fails'}`
      counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
      if (loads === 'no') t.notOk(isLoaded, `${basename(path)} must not load`)
      if (loads === 'yes' && !isLoaded) t.equal(knownReasonIn(log), undefined, basename(path))
    }
    for (const [outcome, count] of counts) t.comment(`${outcome}: ${count}`)
    const all = [...counts.values()].reduce((a, b) => a + b, 0)
    const untold = [...counts].filter(([outcome]) => outcome.startsWith('cannot_tell'))
    t.ok(all >= 60, `${all} objects`)
    t.ok(
      untold.reduce((sum, [, count]) => sum + count, 0) < all / 10,
      'less than a tenth cannot be told',
    )
  },
)

t.test(
  'the verifier reaches what is surely reached in random programs, and nothing else',
  { skip },
  async (t) => {
    const seed = Number(process.env.BTFMILL_TEST_SEED ?? 1)
    const made = Array.from({ length: RANDOM_PROGRAMS }, (_, n) => randomProgram(seed + n))
    const answers = await loadRandom(made.map(({ hex }) => hex))
    const counts = new Map<string, number>()
    for (const [n, { reached, hex }] of made.entries()) {
      const outcome = `${reached}, ${answers[n]}`
      counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
      if (outcome === 'never, poison' || outcome === 'always, loads') t.fail(`${outcome}: ${hex}`)
    }
    for (const [outcome, count] of counts) t.comment(`${outcome}: ${count}`)
    t.ok((counts.get('never, loads') ?? 0) > RANDOM_PROGRAMS / 10)
    t.ok((counts.get('always, poison') ?? 0) > RANDOM_PROGRAMS / 10)
  },
)

const CONSTANTS = [0, 1, 2, 7, 8, 15, 16, 255, 256, 4095, -1, -2, 0x7fffffff, -0x80000000, 100]
const REGISTERS = [0, 1, 2, 3, 4, 5, 7, 8, 9]

/** A program with constants, calls, arithmetic, a stack and branches, one of whose instructions is poisoned. */
function randomProgram(seed: number): { hex: string; reached: string } {
  const random = new Random(seed)
  const below = (n: number) => random.below(n)
  const pick = <T>(all: readonly T[]): T => random.pick(all)
  const rows: number[][] = []
  const emit = (code: number, destination = 0, from = 0, offset = 0, immediate = 0) =>
    rows.push([code, destination, from, offset, immediate])
  emit(0xbf, 6, 1)
  for (const register of REGISTERS) emit(0xb7, register, 0, 0, pick(CONSTANTS))
  for (const slot of [-8, -16, -24]) emit(0x7a, 10, 0, slot, pick(CONSTANTS))
  const jumps: number[] = []
  const starts: number[] = []
  const count = 6 + below(22)
  for (let n = 0; n < count; n++) {
    starts.push(rows.length)
    const d = pick(REGISTERS)
    const s = pick(REGISTERS)
    const slot = -8 * (1 + below(3))
    switch (below(12)) {
      case 0:
        emit(pick([0xb7, 0xb4]), d, 0, 0, pick(CONSTANTS))
        break
      case 1:
        emit(pick([0xbf, 0xbc]), d, s)
        break
      case 2:
      case 3:
        emit(pick([0x00, 0x10, 0x20, 0x40, 0x50, 0xa0]) | pick([4, 7]), d, 0, 0, pick(CONSTANTS))
        break
      case 4:
        emit(pick([0x64, 0x74, 0xc4]), d, 0, 0, below(32))
        break
      case 5:
        emit(pick([0x0c, 0x0f, 0x1f, 0x1c, 0x5f, 0x4f]), d, s)
        break
      case 6:
        // a number of which nothing is known
        emit(0x85, 0, 0, 0, 7)
        for (const register of [1, 2, 3, 4, 5]) emit(0xb7, register, 0, 0, pick(CONSTANTS))
        emit(0xbf, d, 0)
        break
      case 7:
        if (below(2)) emit(0x7b, 10, s, slot)
        else emit(0x79, d, 10, slot)
        break
      case 8:
        emit(0x67, d, 0, 0, 32)
        emit(pick([0x77, 0xc7]), d, 0, 0, 32)
        break
      default: {
        const byRegister = below(5) === 0
        const operation = pick([0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0])
        jumps.push(rows.length)
        const code = operation | pick([5, 5, 6]) | (byRegister ? 8 : 0)
        emit(code, d, byRegister ? s : 0, 0, byRegister ? 0 : pick(CONSTANTS))
      }
    }
  }
  emit(0x05, 0, 0, 1)
  const poison = rows.length
  emit(0xb7, 0, 0, 0, 1)
  const end = rows.length
  emit(0xb7)
  emit(0x95)
  for (const at of jumps) {
    const later = starts.filter((start) => start > at)
    const target =
      below(4) === 0 ? poison : below(4) === 0 || later.length === 0 ? end : pick(later)
    rows[at]![3] = target - at - 1
  }
  const original = new Uint8Array(rows.length * 8)
  const patched = new Uint8Array(rows.length * 8)
  for (const [n, [code, destination, from, offset, immediate]] of rows.entries()) {
    const instruction = {
      code: code!,
      destination: destination!,
      source: from!,
      offset: offset!,
      immediate: immediate!,
    }
    writeInstruction(original, n * 8, 'little', instruction)
    writeInstruction(patched, n * 8, 'little', n === poison ? POISON : instruction)
  }
  const section = 'raw_tp'
  const program: BpfProgram = { name: 'p', section, offset: 0, size: patched.length, global: true }
  const object: BpfObject = {
    byteOrder: 'little',
    btf: parseBtf(encodeBtf([])),
    ext: { functions: [], lines: [], relocations: [] },
    programs: [program],
    calls: [],
    code: new Map([[section, original]]),
    references: new Map(),
    externs: [],
    constants: new Map(),
  }
  const code = new Map([[section, patched]])
  const reachability = new Reachability(object, code, [program], () => ({ is: 'unknown' }))
  const reached = reachability.of(program, poison).is
  return { hex: Buffer.from(patched).toString('hex'), reached }
}
