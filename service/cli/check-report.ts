/* The reports of `check`: text for people, and the formats that CI systems read. */
import { basename } from 'node:path'
import type { Reason, SourceLine, Verdict } from '../../bpf/index.ts'
import { printable } from '../printable.ts'
import { VERSION } from '../version.ts'

/** A reason, and the program that it lies in; none for the object as a whole. */
export interface CheckFinding {
  readonly program?: string
  readonly reason: Reason
}

/** One object on one kernel. */
export interface CheckResult {
  readonly object: string
  readonly kernel: string
  readonly build?: string
  readonly verdict: Verdict
  readonly findings: readonly CheckFinding[]
  /** why the object was not checked */
  readonly error?: string
}

interface ReportOptions {
  /** also what works */
  readonly all?: boolean
}

type Report = (results: readonly CheckResult[], options: ReportOptions) => Iterable<string>

const WORDS: Readonly<Record<Verdict, string>> = {
  yes: 'yes',
  no: 'no',
  cannot_tell: 'cannot tell',
}
/** How grave a reason is in the formats of CI systems. */
const LEVELS: Readonly<Record<Verdict, { github: string; sarif: string }>> = {
  no: { github: 'error', sarif: 'error' },
  cannot_tell: { github: 'warning', sarif: 'warning' },
  yes: { github: 'notice', sarif: 'note' },
}
const VERDICTS = ['yes', 'no', 'cannot_tell'] as const

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`

const kernelOf = ({ kernel, build }: CheckResult): string =>
  build === undefined ? kernel : `${kernel} (${build})`

function countsOf(results: readonly CheckResult[]): string {
  const byVerdict = Map.groupBy(results, ({ verdict }) => verdict)
  return VERDICTS.flatMap((verdict) => {
    const of = byVerdict.get(verdict)?.length
    return of === undefined ? [] : [`${of} ${WORDS[verdict]}`]
  }).join(', ')
}

/** Distribution, version and series: `debian/12 6.1`. */
function seriesOf({ kernel }: CheckResult): string {
  const [distro, version, , release] = kernel.split('/')
  const series = /^\d+\.\d+/.exec(release ?? '')?.[0]
  return series === undefined ? kernel : `${distro}/${version} ${series}`
}

/** A summary of each object, then what does not work, or may not. */
function* textReport(results: readonly CheckResult[], { all = false }: ReportOptions) {
  for (const [object, own] of Map.groupBy(results, ({ object }) => object)) {
    const name = basename(object)
    if (own.length === 1) yield `${name} on ${kernelOf(own[0]!)}: ${WORDS[own[0]!.verdict]}`
    else {
      yield `${name}: ${count(own.length, 'kernel')}: ${countsOf(own)}`
      const series = Map.groupBy(own, seriesOf)
      if (series.size > 1) for (const [key, of] of series) yield `  ${key}: ${countsOf(of)}`
    }
    for (const result of own) {
      // what works is shown too if there is a note
      const isShown = result.verdict !== 'yes' || all || result.findings.length > 0
      if (own.length > 1 && isShown) yield `${kernelOf(result)}: ${WORDS[result.verdict]}`
      if (isShown) for (const finding of result.findings) yield* findingLines(finding)
      if (result.error !== undefined) yield `  ${result.error}`
    }
  }
}

function* findingLines({ program, reason }: CheckFinding): Generator<string> {
  const { code, message, verdict, source, instruction, onlyIf } = reason
  const where = program === undefined ? '' : `${program}: `
  const doubt = { cannot_tell: ' (cannot tell)', yes: ' (note)', no: '' }[verdict]
  yield `  ${where}${message}${doubt} [${code}]`
  if (source) yield `    ${placeOf(source)}`
  else if (instruction !== undefined) yield `    instruction ${instruction}`
  if (onlyIf) yield `    only if ${placeOf(onlyIf)}`
}

function placeOf({ file, line, text }: SourceLine): string {
  return text === '' ? `${file}:${line}` : `${file}:${line}: ${text}`
}

const xml = (text: string): string =>
  text
    // characters that XML 1.0 does not allow
    .replace(/[^\t\n\r\x20-\ud7ff\ue000-\ufffd]/g, '\ufffd')
    .replace(/[<>&"']/g, (c) => `&#${c.charCodeAt(0)};`)

/** JUnit: a suite for each object, a case for each kernel. What cannot be told is skipped. */
function* junitReport(results: readonly CheckResult[]): Generator<string> {
  yield '<?xml version="1.0" encoding="UTF-8"?>'
  yield '<testsuites name="btfmill check">'
  for (const [object, own] of Map.groupBy(results, ({ object }) => object)) {
    const failures = own.filter(({ verdict, error }) => verdict === 'no' && !error).length
    const errors = own.filter(({ error }) => error).length
    const skipped = own.filter(({ verdict }) => verdict === 'cannot_tell').length
    const name = xml(basename(object))
    yield `<testsuite name="${name}" tests="${own.length}" failures="${failures}" errors="${errors}" skipped="${skipped}">`
    for (const result of own) {
      const start = `<testcase classname="${name}" name="${xml(kernelOf(result))}"`
      const text = result.findings.flatMap((finding) => [...findingLines(finding)]).join('\n')
      const deciding = result.findings.find(({ reason }) => reason.verdict === result.verdict)
      const message = xml(result.error ?? deciding?.reason.message ?? '')
      if (result.error) yield `${start}><error message="${message}"/></testcase>`
      else if (result.verdict === 'yes' && text === '') yield `${start}/>`
      else if (result.verdict === 'yes') {
        yield `${start}><system-out>${xml(text)}</system-out></testcase>`
      } else {
        const [open, close] =
          result.verdict === 'no'
            ? [`<failure message="${message}">`, '</failure>']
            : [`<skipped message="${message}">`, '</skipped>']
        yield `${start}>${open}${xml(text)}${close}</testcase>`
      }
    }
    yield '</testsuite>'
  }
  yield '</testsuites>'
}

/** A finding that several kernels have in common. */
interface SharedFinding extends CheckFinding {
  readonly object: string
  readonly kernels: readonly string[]
}

function sharedFindings(results: readonly CheckResult[]): SharedFinding[] {
  const shared = new Map<string, { finding: CheckFinding; object: string; kernels: string[] }>()
  for (const result of results) {
    for (const finding of result.findings) {
      const key = JSON.stringify([result.object, finding])
      const known = shared.get(key)
      if (known) known.kernels.push(kernelOf(result))
      else shared.set(key, { finding, object: result.object, kernels: [kernelOf(result)] })
    }
  }
  return [...shared.values()].map(({ finding, ...rest }) => ({ ...finding, ...rest }))
}

function sharedMessage({ program, reason, kernels }: SharedFinding): string {
  const where = program === undefined ? '' : `${program}: `
  const more = kernels.length - 1
  const on = more === 0 ? kernels[0]! : `${kernels[0]!} and ${count(more, 'other kernel')}`
  return `${where}${reason.message} on ${on}`
}

/** Workflow commands of GitHub Actions: an annotation for each reason, at its source line. */
function* githubReport(results: readonly CheckResult[]): Generator<string> {
  const data = (text: string) =>
    text.replace(
      /[%\r\n]/g,
      (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
    )
  const property = (text: string) => data(text).replaceAll(':', '%3A').replaceAll(',', '%2C')
  for (const finding of sharedFindings(results)) {
    const { reason, object } = finding
    const command = LEVELS[reason.verdict].github
    const place = reason.source
      ? `file=${property(reason.source.file.replace(/^\.\//, ''))},line=${reason.source.line}`
      : `file=${property(object)}`
    yield `::${command} ${place},title=${property(reason.code)}::${data(sharedMessage(finding))}`
  }
  for (const result of results) {
    if (result.error) yield `::error file=${property(result.object)}::${data(result.error)}`
  }
  yield* Map.groupBy(results, ({ object }) => object)
    .entries()
    .map(([object, own]) => `${data(basename(object))}: ${countsOf(own)}`)
}

/** SARIF 2.1.0 (OASIS): a result for each reason, with the kernels that have it in common. */
function* sarifReport(results: readonly CheckResult[]): Generator<string> {
  const found = sharedFindings(results)
  const rules = [...new Set(found.map(({ reason }) => reason.code))].sort()
  yield JSON.stringify(
    {
      $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
      version: '2.1.0',
      runs: [
        {
          tool: {
            driver: { name: 'btfmill', version: VERSION, rules: rules.map((id) => ({ id })) },
          },
          results: found.map((finding) => {
            const { reason, object, kernels } = finding
            const uri = encodeURI(reason.source?.file.replace(/^\.\//, '') ?? object)
            const region = reason.source && {
              region: { startLine: Math.max(1, reason.source.line) },
            }
            return {
              ruleId: reason.code,
              level: LEVELS[reason.verdict].sarif,
              message: { text: sharedMessage(finding) },
              locations: [{ physicalLocation: { artifactLocation: { uri }, ...region } }],
              properties: { object, kernels },
            }
          }),
        },
      ],
    },
    null,
    1,
  )
}

const REPORTS = {
  text: textReport,
  junit: junitReport,
  sarif: sarifReport,
  github: githubReport,
} satisfies Record<string, Report>

export type ReportFormat = keyof typeof REPORTS

/** The lines of a report. Those for terminals and logs have no control characters. */
export function* reportOf(
  format: ReportFormat,
  results: readonly CheckResult[],
  options: ReportOptions,
): Generator<string> {
  const isText = format === 'text' || format === 'github'
  for (const line of REPORTS[format](results, options)) yield isText ? printable(line) : line
}
