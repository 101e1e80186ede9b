import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Check, CheckedProgram, Reason, Verdict } from '../../bpf/index.ts'
import type { StoreError } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { ServiceError } from '../error.ts'
import { jsonOf, lineOf } from '../json.ts'
import { type CheckFinding, type CheckResult, type ReportFormat, reportOf } from './check-report.ts'
import { withPool } from './for-each-kernel.ts'
import {
  type CommonOptions,
  type FilterOptions,
  type KernelError,
  type KernelFlags,
  readObject,
} from './input.ts'
import { printable } from './output.ts'
import { sweepChosen, threadsFor } from './sweep.ts'

interface CheckCommandOptions extends CommonOptions, FilterOptions, KernelFlags {
  format: ReportFormat | 'json'
  all?: boolean
  allPrograms?: boolean
  baseline?: string
  report: readonly ReportFile[]
}

/** A report that goes to a file, beside the one that is printed. */
export interface ReportFile {
  format: ReportFormat | 'json'
  path: string
}

/** The exit status: an object fails on a kernel, or was not checked on one; or some cannot be told. */
const STATUS = { no: 1, cannot_tell: 3, yes: 0 } as const

/** `btfmill check`. Returns the exit status: 0 if all objects work on all kernels, 1 or 3 as `STATUS` has it. */
export async function run(files: string[], options: CheckCommandOptions): Promise<number> {
  const json = options.json === true || options.format === 'json'
  const lost = options.baseline === undefined ? undefined : await readBaseline(options.baseline)
  const results: CheckResult[] = []
  const lines: string[] = []
  const keepsLines = options.report.some(({ format }) => format === 'json')
  await withPool(threadsFor(options), async (pool) => {
    const objects = await Promise.all(files.map(readObject))
    const onInvalid = ({ message }: StoreError) => {
      console.error(`btfmill: ${printable(message)}`)
      results.push({ object: '', kernel: '', verdict: 'no', findings: [], error: message })
    }
    const { allPrograms = false } = options
    const all = sweepChosen(pool, 'check', objects, options, onInvalid, { allPrograms })
    for await (const { kernel: chosen, ...swept } of all) {
      const { name: kernel, build } = chosen
      for (const [n, file] of files.entries()) {
        const text = 'error' in swept ? jsonOf({ error: swept.error }) : swept.value[n]!
        const line = lineOf({ object: file, kernel, build }, text)
        if (json) process.stdout.write(line)
        if (keepsLines) lines.push(line)
        const result = resultOf(file, kernel, build, JSON.parse(text))
        results.push(result)
        if (result.error !== undefined) {
          console.error(`btfmill: ${printable(`${titleOf(result)}: ${result.error}`)}`)
        }
      }
    }
  })
  const checked = results.filter(({ object }) => object !== '')
  if (!json) {
    for (const line of reportOf(options.format as ReportFormat, checked, options)) console.log(line)
  }
  for (const { format, path } of options.report) {
    const report =
      format === 'json' ? lines : reportOf(format, checked, options).map((line) => `${line}\n`)
    await writeWhole(path, Buffer.from([...report].join('')))
  }
  if (lost) {
    const now = results.filter((result) => result.verdict !== 'yes' && lost.has(keyOf(result)))
    for (const result of now) console.error(`btfmill: lost: ${printable(titleOf(result))}`)
    return now.length === 0 ? 0 : 1
  }
  return STATUS[worst(results.map(({ verdict }) => verdict))]
}

/** The result of the task `check` for one object, as JSON has it: 64-bit numbers are texts. */
type Answer = Check | { readonly error: KernelError }

function resultOf(
  object: string,
  kernel: string,
  build: string | undefined,
  answer: Answer,
): CheckResult {
  const named = { object, kernel, ...(build !== undefined && { build }) }
  if ('error' in answer) {
    const { code, message } = answer.error
    return { ...named, verdict: 'no', findings: [], error: `${code}: ${message}` }
  }
  const own = answer.reasons.map((reason): CheckFinding => ({ reason }))
  const ofPrograms = answer.programs.flatMap(({ name, reasons }: CheckedProgram) =>
    reasons.map((reason: Reason): CheckFinding => ({ program: name, reason })),
  )
  return { ...named, verdict: answer.verdict, findings: [...own, ...ofPrograms] }
}

function worst(verdicts: readonly Verdict[]): Verdict {
  if (verdicts.includes('no')) return 'no'
  return verdicts.includes('cannot_tell') ? 'cannot_tell' : 'yes'
}

/** One object on one kernel, whichever folder the object lies in. */
const keyOf = ({ object, kernel, build }: Pick<CheckResult, 'object' | 'kernel' | 'build'>) =>
  JSON.stringify([basename(object), kernel, build ?? ''])

const titleOf = ({ object, kernel, build }: CheckResult): string =>
  `${basename(object)} on ${kernel}${build === undefined ? '' : ` (${build})`}`

/** Reads the lines that `check --json` printed before; returns the keys of what worked then. */
async function readBaseline(file: string): Promise<Set<string>> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new ServiceError('invalid_file', `cannot read the baseline ${file}: ${error.code}`)
  })
  const worked = new Set<string>()
  for (const [n, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    try {
      const { object, kernel, build, verdict } = JSON.parse(line)
      if (typeof object !== 'string' || typeof kernel !== 'string') throw new SyntaxError()
      if (verdict === 'yes') worked.add(keyOf({ object, kernel, build }))
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      const message = `invalid baseline ${file}, line ${n + 1}: expected a line of check --json`
      throw new ServiceError('invalid_file', message)
    }
  }
  return worked
}
