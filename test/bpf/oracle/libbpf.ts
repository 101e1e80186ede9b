/*
 * The oracle for relocating: libbpf itself, run by `relocate.c`, and its log parsed into one value for each relocation.
 * The wording is libbpf's (src/relo_core.c, src/libbpf.c); a line about a relocation that is not known here throws,
 * since a decision misread would be worse than none.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const MAX_LOG = 1 << 28

/** What libbpf did with one relocation. */
export type Outcome =
  | { is: 'ok'; old: bigint; new: bigint; bytes?: { old: number; new: number } }
  | { is: 'absent'; old: bigint }
  | { is: 'poisoned'; why: 'missing' | 'access' }
  | { is: 'fatal'; why: string }

export interface Decision {
  section: string
  /** its number among the relocations of the section in `.BTF.ext` */
  index: number
  /** the program or subprogram it lies in */
  program: string
  /** libbpf's short name of the kind, `byte_off` for instance; not known where the local spec is malformed */
  kind: string | undefined
  /** the number of the instruction in its program; not known for what is fatal before patching */
  instruction: number | undefined
  /** type ids of the target that match, in libbpf's order */
  candidates: number[]
  outcome: Outcome
}

export interface Relocated {
  /** by section and index, each once, whatever number of programs it was seen with */
  decisions: Decision[]
  /** per program: what `bpf_object__load()` returned, and the instructions as the relocations left them */
  programs: Map<string, { result: number; instructions: Buffer; log: string }>
}

/** Compiles the harness into `directory`, against the libbpf that is installed; returns its path. */
export async function buildRelocate(directory: string): Promise<string> {
  const program = join(directory, 'relocate')
  const source = join(import.meta.dirname, 'relocate.c')
  await run('clang', ['-O1', '-Wall', '-Wextra', '-Werror', source, '-lbpf', '-o', program])
  return program
}

/** libbpf's decisions for an object against a raw BTF file; `command` is the harness, or an emulator and the harness. */
export async function relocateWithLibbpf(
  command: readonly string[],
  object: string,
  btf: string,
): Promise<Relocated> {
  const [program = '', ...first] = command
  const { stdout } = await run(program, [...first, object, btf], { maxBuffer: MAX_LOG })
  return parseRelocated(stdout)
}

/** The harness's output as values. */
export function parseRelocated(output: string): Relocated {
  const decisions = new Map<string, Decision>()
  const programs: Relocated['programs'] = new Map()
  for (const text of output.split(/^program /m).slice(1)) {
    const name = text.slice(0, text.indexOf('\n'))
    const log = [...text.matchAll(/^\| (?:libbpf: )?(.*)$/gm)].map((match) => match[1]!)
    for (const decision of decisionsOf(log)) {
      const key = `${decision.section} #${decision.index}`
      const before = decisions.get(key)
      if (before && JSON.stringify(before, plain) !== JSON.stringify(decision, plain)) {
        throw new Error(`libbpf decided twice, and differently, on ${key}`)
      }
      decisions.set(key, decision)
    }
    programs.set(name, {
      result: Number(text.match(/^result (-?\d+)$/m)?.[1]),
      instructions: Buffer.from(text.match(/^instructions ([0-9a-f]*)$/m)?.[1] ?? '', 'hex'),
      log: log.join('\n'),
    })
  }
  return { decisions: [...decisions.values()], programs }
}

/** Lines that say nothing which others do not say as well. */
const SILENT =
  /^(non-matching candidate |parsing \[|insn #\d+ \(LDX\/ST\/STX\) (value too big|unexp|inv))/

function decisionsOf(log: readonly string[]): Decision[] {
  const decisions: Decision[] = []
  let section = ''
  let missing = false
  let why = ''
  for (const line of log) {
    section = line.match(/^sec '(.*)': found \d+ CO-RE relocations$/)?.[1] ?? section
    const relocation = line.match(/^prog '(.*?)': relo #(\d+): (.*?) *$/)
    if (!relocation) continue
    const [, program = '', number = '', text = ''] = relocation
    const index = Number(number)
    let decision = decisions.at(-1)
    if (decision?.section !== section || decision.index !== index) {
      const outcome: Outcome = { is: 'fatal', why: 'undecided' }
      const blank = { kind: undefined, instruction: undefined, candidates: [], outcome }
      decision = { section, index, program, ...blank }
      decisions.push(decision)
      missing = false
      why = ''
    }
    const patched = text.match(
      /^patched insn #(\d+) \((.*)\) (imm|off|imm64|mem_sz) (\d+) -> (\d+)$/,
    )
    const failed = text.match(/^failed to (relocate|patch insn #(\d+)): (-\d+)$/)
    const poisoned = text.match(/^substituting insn #(\d+) w\/ invalid insn$/)
    if (patched) {
      decision.instruction = Number(patched[1])
      decision.outcome = afterPatch(
        decision.outcome,
        patched[3]!,
        patched[4]!,
        patched[5]!,
        missing,
      )
    } else if (poisoned) {
      decision.instruction ??= Number(poisoned[1])
      decision.outcome = { is: 'poisoned', why: why === '' ? 'missing' : 'access' }
    } else if (failed) {
      if (failed[2] !== undefined) decision.instruction = Number(failed[2])
      decision.outcome = { is: 'fatal', why: why || `error ${failed[3]}` }
    } else if (text.startsWith('matching candidate ')) {
      decision.candidates.push(Number(text.match(/\[(\d+)\]/)?.[1]))
    } else if (text === 'no matching targets found') {
      missing = true
    } else if (/^<\w+> (\(\d+\) relocation doesn't support anonymous|\[)/.test(text)) {
      decision.kind = text.match(/^<(\w+)>/)![1]
      if (text.includes('anonymous types')) why = text
    } else if (
      SILENT.test(text) ||
      / ambiguity: |accesses field incorrectly|unexpected insn /.test(text)
    ) {
      if (!text.startsWith('non-matching')) why = text
    } else if (
      / error matching candidate|trying to relocate|has unexpected form|unrecognized/.test(text)
    ) {
      why = text
    } else {
      throw new Error(`libbpf said something new: ${line}`)
    }
  }
  return decisions
}

function afterPatch(
  before: Outcome,
  what: string,
  old: string,
  now: string,
  missing: boolean,
): Outcome {
  if (what === 'mem_sz') {
    if (before.is !== 'ok') throw new Error('libbpf patched an access size before an offset')
    return { ...before, bytes: { old: Number(old), new: Number(now) } }
  }
  if (!missing) return { is: 'ok', old: BigInt(old), new: BigInt(now) }
  if (now !== '0') throw new Error(`libbpf made ${now} of a missing target`)
  return { is: 'absent', old: BigInt(old) }
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}` : value
}
