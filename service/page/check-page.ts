/* /check/DIGEST: on which kernels a BPF object works, and why not on the others. It uses nothing of Node's: browsers run it. */
import type { Check, Reason, Verdict } from '../../bpf/index.ts'
import type { RunProgress } from './check-runs.ts'
import { type HeatMap, heatMapOf, kernelsHref } from './heat-map.ts'
import type { KernelRow } from './kernel-table.ts'
import type { Page } from './render.ts'
import { kernelUrl } from './url.ts'

/** A kernel that an object is checked against, as far as the page shows it. */
export type CheckedKernel = Pick<KernelRow, 'name' | 'kernel' | 'series' | 'line' | 'flavour'>

/** The result for one kernel. */
export interface KernelVerdict {
  readonly row: CheckedKernel
  /** its place among all kernels, as pages list them */
  readonly place: number
  /** the package version, if the kernel has several builds with different BTF */
  readonly build?: string
  readonly result:
    | Pick<Check, 'verdict' | 'loads' | 'reasons' | 'programs'>
    | { readonly error: string }
}

/** Reasons that a page lists, and series of each. */
const MAX_REASONS = 60
const MAX_SERIES = 40
/** Different reasons of each verdict, and programs, that are counted. Tracee, one of the largest objects, has 400 programs. */
const MAX_COUNTED = 250
const MAX_PROGRAMS = 1000

type PageVerdict = 'yes' | 'no' | 'unsure'

interface RunView {
  readonly verdict: PageVerdict
  readonly first: string
  readonly last: string
  readonly count: number
  readonly firstHref: string
  readonly lastHref: string
}

interface SeriesView {
  readonly text: string
  readonly runs: readonly RunView[]
}

interface ReasonView {
  readonly verdict: PageVerdict | 'note'
  readonly program?: string
  readonly section?: string
  readonly code: string
  readonly stage?: string
  readonly message: string
  readonly access?: string
  readonly source?: { readonly file: string; readonly line: number; readonly text: string }
  readonly onlyIf?: { readonly file: string; readonly line: number; readonly text: string }
  readonly kernels: number
  readonly series: readonly {
    readonly text: string
    readonly first: string
    readonly last: string
    readonly count: number
  }[]
}

export interface CheckView {
  readonly name: string
  readonly digest: string
  /** bytes of the object */
  readonly size: number
  readonly counts: Record<PageVerdict, number>
  readonly total: number
  /** kernels that were not checked, since there are too many */
  readonly skipped: number
  readonly heatMap: HeatMap
  readonly series: readonly SeriesView[]
  readonly reasons: readonly ReasonView[]
  readonly reasonsOmitted: number
  /** whether there are more reasons than were counted */
  readonly reasonsCut: boolean
  readonly programs: readonly {
    readonly name: string
    readonly section: string
    readonly counts: Record<PageVerdict, number>
  }[]
  /** whether the object has more programs than these */
  readonly programsCut: boolean
}

/** What is known of the object itself. */
export type CheckedObject = Pick<CheckView, 'name' | 'digest' | 'size'>

type FoundReason = Omit<ReasonView, 'kernels' | 'series'>

/** The results of an object, added up one by one, so that a hostile object's reasons for many kernels are never held. */
export class CheckSummary {
  readonly #kernels = new Map<CheckedKernel, { place: number; verdict: PageVerdict }>()
  readonly #reasons = new Map<string, { reason: FoundReason; rows: Set<CheckedKernel> }>()
  /** the number of different reasons by verdict */
  readonly #counted = { no: 0, unsure: 0, note: 0, yes: 0 }
  readonly #programs = new Map<string, CheckView['programs'][number]>()
  #reasonsCut = false
  #programsCut = false

  add({ row, place, result }: KernelVerdict): void {
    const before = this.#kernels.get(row)?.verdict
    this.#kernels.set(row, { place, verdict: worst(before, pageVerdict(result)) })
    if ('error' in result) {
      this.#addReason({ verdict: 'no', code: 'error', message: result.error }, row)
      return
    }
    for (const reason of result.reasons) this.#addReason(reasonView(reason), row)
    for (const { name, section, verdict, reasons } of result.programs) {
      this.#addProgram(name, section, PAGE_VERDICTS[verdict])
      for (const reason of reasons)
        this.#addReason({ ...reasonView(reason), program: name, section }, row)
    }
  }

  /** The sum as a view; `skipped` kernels were not checked. */
  view(object: CheckedObject, skipped: number): CheckView {
    const listed = [...this.#kernels].sort(([, a], [, b]) => a.place - b.place)
    const verdicts = new Map(listed.map(([row, { verdict }]) => [row, verdict]))
    const reasons = this.#reasonViews([...verdicts.keys()])
    return {
      ...object,
      counts: countsOf(verdicts.values()),
      total: verdicts.size,
      skipped,
      heatMap: heatMapOf(
        verdicts.keys(),
        [
          { state: 'yes', words: 'work' },
          { state: 'no', words: 'do not' },
          { state: 'unsure', words: 'cannot be told' },
        ],
        (row) => verdicts.get(row),
        kernelsHref,
      ),
      series: seriesViews(verdicts),
      reasons,
      reasonsOmitted: this.#reasons.size - reasons.length,
      reasonsCut: this.#reasonsCut,
      programs: [...this.#programs.values()],
      programsCut: this.#programsCut,
    }
  }

  #addReason(reason: FoundReason, row: CheckedKernel): void {
    const key = JSON.stringify(reason)
    const known = this.#reasons.get(key)
    if (known) {
      known.rows.add(row)
      return
    }
    this.#reasonsCut ||= this.#counted[reason.verdict] === MAX_COUNTED
    if (this.#counted[reason.verdict] === MAX_COUNTED) return
    this.#counted[reason.verdict]++
    this.#reasons.set(key, { reason, rows: new Set([row]) })
  }

  #addProgram(name: string, section: string, verdict: PageVerdict): void {
    const key = `${section}\0${name}`
    const known = this.#programs.get(key) ?? { name, section, counts: { yes: 0, no: 0, unsure: 0 } }
    known.counts[verdict]++
    if (this.#programs.has(key) || this.#programs.size < MAX_PROGRAMS)
      this.#programs.set(key, known)
    else this.#programsCut = true
  }

  /** Equal reasons of all kernels together: those that forbid first, then those of most kernels. `rows` are in order. */
  #reasonViews(rows: readonly CheckedKernel[]): ReasonView[] {
    const rank = ({ reason }: { reason: FoundReason }) =>
      ['no', 'unsure', 'note', 'yes'].indexOf(reason.verdict)
    return [...this.#reasons.values()]
      .sort((a, b) => rank(a) - rank(b) || b.rows.size - a.rows.size)
      .slice(0, MAX_REASONS)
      .map(({ reason, rows: own }) => ({
        ...reason,
        kernels: own.size,
        series: placesOf(rows.filter((row) => own.has(row))),
      }))
  }
}

export function checkedPage(view: CheckView): Page {
  const { name, digest, counts, total } = view
  return {
    template: 'checked',
    title: `${name} works on ${counts.yes} of ${total} kernels`,
    description: `On which Linux kernels the BPF object ${name} loads and attaches, and the reason for each on which it does not.`,
    path: `/check/${digest}`,
    part: 'check',
    unlisted: true,
    view,
  }
}

/** The page while the check is under way; it loads again by itself. */
export function checkingPage(digest: string, { done, total }: RunProgress): Page {
  return {
    template: 'checking',
    title: 'Checking a BPF object',
    description: 'The kernels on which a BPF object loads are being worked out.',
    path: `/check/${digest}`,
    part: 'check',
    unlisted: true,
    view: { digest, state: 'checking', done, total },
  }
}

const PAGE_VERDICTS: Record<Verdict, PageVerdict> = { yes: 'yes', no: 'no', cannot_tell: 'unsure' }

const pageVerdict = (result: KernelVerdict['result']): PageVerdict =>
  'error' in result ? 'no' : PAGE_VERDICTS[result.verdict]

const ORDER: readonly PageVerdict[] = ['no', 'unsure', 'yes']

/** The worse of the verdicts of two builds. */
const worst = (a: PageVerdict | undefined, b: PageVerdict): PageVerdict =>
  a !== undefined && ORDER.indexOf(a) < ORDER.indexOf(b) ? a : b

function countsOf(verdicts: Iterable<PageVerdict>): Record<PageVerdict, number> {
  const counts = { yes: 0, no: 0, unsure: 0 }
  for (const verdict of verdicts) counts[verdict]++
  return counts
}

const seriesText = ({ kernel, flavour }: CheckedKernel): string =>
  [kernel.distro, kernel.version, kernel.arch, flavour].filter(Boolean).join(' ')

/** The runs of equal verdicts in each series, oldest kernel first. */
function seriesViews(verdicts: ReadonlyMap<CheckedKernel, PageVerdict>): SeriesView[] {
  const grouped = Map.groupBy(verdicts.keys(), ({ series }) => series)
  return [...grouped.values()].map((newestFirst) => {
    const runs: (RunView & { count: number })[] = []
    for (const row of newestFirst.toReversed()) {
      const verdict = verdicts.get(row)!
      const { release } = row.kernel
      const href = kernelUrl(row.name)
      const last = runs.at(-1)
      if (last?.verdict === verdict)
        runs[runs.length - 1] = { ...last, last: release, lastHref: href, count: last.count + 1 }
      else
        runs.push({
          verdict,
          first: release,
          last: release,
          count: 1,
          firstHref: href,
          lastHref: href,
        })
    }
    return { text: seriesText(newestFirst[0]!), runs }
  })
}

function reasonView({ code, verdict, stage, message, access, source, onlyIf }: Reason) {
  return {
    verdict: verdict === 'yes' ? ('note' as const) : PAGE_VERDICTS[verdict],
    ...{ code, stage, message },
    ...(access && { access }),
    ...(source && { source }),
    ...(onlyIf && { onlyIf }),
  }
}

function placesOf(rows: readonly CheckedKernel[]): ReasonView['series'] {
  const grouped = Map.groupBy(rows, ({ series }) => series)
  return [...grouped.values()].slice(0, MAX_SERIES).map((newestFirst) => ({
    text: seriesText(newestFirst[0]!),
    first: newestFirst.at(-1)!.kernel.release,
    last: newestFirst[0]!.kernel.release,
    count: newestFirst.length,
  }))
}

/** A badge for a README: how many kernels an object works on. Its text is numbers only; without a result, it is `checking`. */
export function badgeOf(result: Pick<CheckView, 'counts' | 'total'> | undefined): string {
  const { yes, total } = result ? { ...result.counts, total: result.total } : { yes: 0, total: 0 }
  const text = result ? `${yes} of ${total} kernels` : 'checking'
  const [left, right] = [38, 14 + text.length * 6.3]
  const width = Math.ceil(left + right)
  const colour = !result ? '#57606a' : yes === total ? '#1a7f37' : yes === 0 ? '#b3261e' : '#8a5a00'
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="20" role="img" aria-label="BTF: ${text}">`,
    `<title>BTF: ${text}</title>`,
    `<rect width="${width}" height="20" rx="3" fill="#3d444d"/>`,
    `<path fill="${colour}" d="M${left} 0h${width - left - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H${left}z"/>`,
    '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">',
    `<text x="8" y="14">BTF</text><text x="${left + 7}" y="14">${text}</text></g></svg>`,
  ].join('')
}
