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
  /** the package version, if the kernel has several builds with different BTF */
  readonly build?: string
  readonly result:
    | Pick<Check, 'verdict' | 'loads' | 'reasons' | 'programs'>
    | { readonly error: string }
}

/** Reasons that a page lists, and series of each. */
const MAX_REASONS = 60
const MAX_SERIES = 40

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
  readonly programs: readonly {
    readonly name: string
    readonly section: string
    readonly counts: Record<PageVerdict, number>
  }[]
}

/** What is known of the object itself. */
export type CheckedObject = Pick<CheckView, 'name' | 'digest' | 'size'>

/** The results of an object as a view. */
export function checkViewOf(
  object: CheckedObject,
  results: readonly KernelVerdict[],
  skipped: number,
): CheckView {
  const verdicts = new Map<CheckedKernel, PageVerdict>()
  for (const { row, result } of results)
    verdicts.set(row, worst(verdicts.get(row), pageVerdict(result)))
  const counts = countsOf(verdicts.values())
  const reasons = reasonsOf(results)
  return {
    ...object,
    counts,
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
    reasons: reasons.slice(0, MAX_REASONS),
    reasonsOmitted: Math.max(reasons.length - MAX_REASONS, 0),
    programs: programsOf(results),
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

/** Equal reasons of all kernels together: those that forbid first, then those of most kernels. */
function reasonsOf(results: readonly KernelVerdict[]): ReasonView[] {
  const found = new Map<
    string,
    { reason: Omit<ReasonView, 'kernels' | 'series'>; rows: Set<CheckedKernel> }
  >()
  const add = (reason: Omit<ReasonView, 'kernels' | 'series'>, row: CheckedKernel) => {
    const key = JSON.stringify(reason)
    const known = found.get(key) ?? { reason, rows: new Set() }
    known.rows.add(row)
    found.set(key, known)
  }
  for (const { row, result } of results) {
    if ('error' in result) {
      add({ verdict: 'no', code: 'error', message: result.error }, row)
      continue
    }
    for (const reason of result.reasons) add(reasonView(reason), row)
    for (const { name: program, section, reasons } of result.programs)
      for (const reason of reasons) add({ ...reasonView(reason), program, section }, row)
  }
  const rank = ({ reason }: { reason: { verdict: ReasonView['verdict'] } }) =>
    ['no', 'unsure', 'note', 'yes'].indexOf(reason.verdict)
  return [...found.values()]
    .sort((a, b) => rank(a) - rank(b) || b.rows.size - a.rows.size)
    .map(({ reason, rows }) => ({ ...reason, kernels: rows.size, series: placesOf(rows) }))
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

function placesOf(rows: ReadonlySet<CheckedKernel>): ReasonView['series'] {
  const grouped = Map.groupBy(rows, ({ series }) => series)
  return [...grouped.values()].slice(0, MAX_SERIES).map((newestFirst) => ({
    text: seriesText(newestFirst[0]!),
    first: newestFirst.at(-1)!.kernel.release,
    last: newestFirst[0]!.kernel.release,
    count: newestFirst.length,
  }))
}

function programsOf(results: readonly KernelVerdict[]): CheckView['programs'] {
  const found = new Map<string, { name: string; section: string; verdicts: PageVerdict[] }>()
  for (const { result } of results) {
    if ('error' in result) continue
    for (const { name, section, verdict } of result.programs) {
      const key = `${section}\0${name}`
      const known = found.get(key) ?? { name, section, verdicts: [] }
      known.verdicts.push(PAGE_VERDICTS[verdict])
      found.set(key, known)
    }
  }
  return Array.from(found.values(), ({ name, section, verdicts }) => ({
    ...{ name, section },
    counts: countsOf(verdicts),
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
