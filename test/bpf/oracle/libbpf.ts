/*
 * The oracle for relocating: libbpf itself, run by `relocate.c`. Its log is parsed into one value per relocation. The
 * wording is that of src/relo_core.c and src/libbpf.c. An unknown line about a relocation throws, since a misread
 * result would be worse than none.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const MAX_LOG = 1 << 28

/** libbpf's result for one relocation. */
export type Outcome =
  | { is: 'ok'; old: bigint; new: bigint; bytes?: { old: number; new: number } }
  | { is: 'absent'; old: bigint }
  | { is: 'poisoned'; why: 'missing' | 'access' }
  | { is: 'fatal'; why: string }

export interface Decision {
  section: string
  /** index among the section's relocations in `.BTF.ext` */
  index: number
  /** the program or subprogram with the relocation */
  program: string
  /** libbpf's short name of the kind, such as `byte_off`; unknown if the local spec is malformed */
  kind: string | undefined
  /** index of the instruction in its program; unknown for an error before patching */
  instruction: number | undefined
  /** ids of the matching target types, in libbpf's order */
  candidates: number[]
  outcome: Outcome
}

export interface Relocated {
  /** by section and index; a relocation that several programs use occurs once */
  decisions: Decision[]
  /** per program: the return value of `bpf_object__load()` and the relocated instructions */
  programs: Map<string, { result: number; instructions: Buffer; log: string }>
}

/** Compiles the harness into `directory`, with the installed libbpf. Returns its path. */
export async function buildRelocate(directory: string): Promise<string> {
  const program = join(directory, 'relocate')
  const source = join(import.meta.dirname, 'relocate.c')
  await run('clang', ['-O1', '-Wall', '-Wextra', '-Werror', source, '-lbpf', '-o', program])
  return program
}

/** libbpf's results for an object against a raw BTF file. `command` is the harness, or an emulator and the harness. */
export async function relocateWithLibbpf(
  command: readonly string[],
  object: string,
  btf: string,
): Promise<Relocated> {
  const [program = '', ...first] = command
  const { stdout } = await run(program, [...first, object, btf], { maxBuffer: MAX_LOG })
  return parseRelocated(stdout)
}

/** Parses the harness's output. */
function parseRelocated(output: string): Relocated {
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

/** A result as far as it is parsed. */
interface Draft {
  decision: Decision
  missing: boolean
  why: string
}

/** libbpf's lines about one relocation, with their meaning. The first pattern that matches counts. */
const LINES: readonly (readonly [RegExp, (draft: Draft, match: RegExpMatchArray) => void])[] = [
  [/^non-matching candidate #/, () => {}],
  [
    /^matching candidate #\d+ <\w+> \[(\d+)\]/,
    ({ decision }, [, id]) => decision.candidates.push(Number(id)),
  ],
  [
    /^no matching targets found$/,
    (draft) => {
      draft.missing = true
    },
  ],
  [
    /^patched insn #(\d+) \(.*\) (?:imm|off|imm64) (\d+) -> (\d+)$/,
    ({ decision, missing }, [, instruction, old = '', now = '']) => {
      if (missing && now !== '0') throw new Error(`libbpf made ${now} of a missing target`)
      decision.instruction = Number(instruction)
      decision.outcome = missing
        ? { is: 'absent', old: BigInt(old) }
        : { is: 'ok', old: BigInt(old), new: BigInt(now) }
    },
  ],
  [
    /^patched insn #\d+ \(.*\) mem_sz (\d+) -> (\d+)$/,
    ({ decision }, [, old, now]) => {
      if (decision.outcome.is !== 'ok') throw new Error('a size patched before an offset')
      decision.outcome.bytes = { old: Number(old), new: Number(now) }
    },
  ],
  [
    /^substituting insn #(\d+) w\/ invalid insn$/,
    ({ decision, why }, [, instruction]) => {
      // the second half of an LDIMM64 is substituted first
      decision.instruction = Number(instruction)
      decision.outcome = { is: 'poisoned', why: why === '' ? 'missing' : 'access' }
    },
  ],
  [
    /^failed to (?:relocate|patch insn #(\d+)): (-\w+)$/,
    ({ decision, why }, [, instruction, error]) => {
      if (instruction !== undefined) decision.instruction = Number(instruction)
      decision.outcome = { is: 'fatal', why: why || `error ${error}` }
    },
  ],
  [
    /^<(\w+)> (\[|\(\d+\) relocation doesn't support anonymous types)/,
    (draft, [text, kind, rest]) => {
      draft.decision.kind = kind
      if (rest !== '[') draft.why = text
    },
  ],
  [
    /ambiguity: |^error matching candidate|^parsing \[.* failed|^unexpected insn |^insn #\d+ \(|^trying to |^target cand/,
    (draft, match) => {
      draft.why = match.input!
    },
  ],
]

function decisionsOf(log: readonly string[]): Decision[] {
  const drafts: Draft[] = []
  let section = ''
  for (const line of log) {
    section = line.match(/^sec '(.*)': found \d+ CO-RE relocations$/)?.[1] ?? section
    const relocation = line.match(/^prog '(.*?)': relo #(\d+): (.*?) *$/)
    if (!relocation) continue
    const [, program = '', number, text = ''] = relocation
    const index = Number(number)
    let draft = drafts.at(-1)
    if (draft?.decision.section !== section || draft.decision.index !== index) {
      const outcome: Outcome = { is: 'fatal', why: 'undecided' }
      const unknown = { kind: undefined, instruction: undefined, candidates: [] }
      draft = {
        decision: { section, index, program, ...unknown, outcome },
        missing: false,
        why: '',
      }
      drafts.push(draft)
    }
    const [pattern, apply] = LINES.find(([pattern]) => pattern.test(text)) ?? []
    if (!pattern || !apply) throw new Error(`libbpf said something new: ${line}`)
    apply(draft, text.match(pattern)!)
  }
  return drafts.map(({ decision }) => decision)
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}` : value
}
