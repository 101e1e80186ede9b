/*
 * /types/NAME/history and /types/NAME.MEMBER: since when a type is as it is, and where a member came, moved and went. Runs
 * of equal forms over the kernels of each series, folded by distribution and version.
 */
import { compareVersions } from '../../storage/index.ts'
import type {
  DeclarationHistory,
  FormChanges,
  IndexedKernel,
  MemberHistory,
  MemberRun,
  SeriesName,
} from '../declarations/answers.ts'
import { nameOf } from '../kernel/name.ts'
import { type ChartLine, drawChart, lineStyle } from './history-chart.ts'
import { placeOf } from './layout-picture.ts'
import type { Page } from './render.ts'
import {
  diffUrl,
  functionUrl,
  historyUrl,
  kernelUrl,
  memberUrl,
  type PagePart,
  typeUrl,
  urlOf,
} from './url.ts'

/** Lines of a chart, forms of a list, and names in a change. */
const MAX_CHART_LINES = 24
const MAX_FORMS = 40
const MAX_NAMES = 12
/** Distributions that are unfolded, and runs that are listed; others are a strip, and a link to a page of their own. */
const MAX_OPEN = 4
const MAX_RUNS = 140

interface HistoryRun {
  readonly first: string
  readonly last: string
  readonly firstHref: string
  readonly lastHref: string
  readonly kernels: number
  /** percent of the series */
  readonly width: number
  /** numbers of the forms, from 1; none where the kernels lack it */
  readonly forms: readonly number[]
  /** class of the colour of its first form */
  readonly colour: string
  /** in words: the form, or that it is not there */
  readonly text: string
  /** what changed since the run before */
  readonly changes: readonly string[]
  /** the type in the first kernel of the run, and what differs from the kernel before */
  readonly href?: string
  readonly diff?: string
}

interface HistoryGroup {
  readonly distro: string
  readonly version: string
  readonly open: boolean
  readonly kernels: number
  /** forms in this group */
  readonly forms: number
  /** the page of this distribution alone */
  readonly href: string
  readonly series: readonly {
    readonly label: string
    readonly kernels: number
    readonly strip: readonly Pick<HistoryRun, 'forms' | 'width' | 'colour' | 'first' | 'kernels'>[]
    /** absent if the page has too many */
    readonly runs?: readonly HistoryRun[]
  }[]
}

/** The distribution that a page is limited to. */
export interface HistoryFilter {
  readonly distro?: string
  readonly version?: string
}

interface FormView {
  readonly number: number
  readonly colour: string
  readonly kernels: number
  /** in words: size, members, type */
  readonly text: string
}

export interface HistoryView {
  readonly query: string
  readonly name: string
  readonly member?: string
  readonly href: string
  readonly filter: HistoryFilter
  /** the page of all distributions */
  readonly all: string
  readonly histories: readonly {
    readonly kind: string
    readonly forms: readonly FormView[]
    readonly formCount: number
    readonly kernels: number
    readonly groups: readonly HistoryGroup[]
    readonly chart?: string
    readonly chartTitle?: string
    readonly legend: readonly {
      readonly label: string
      readonly colour: string
      readonly dashes: string
    }[]
  }[]
}

/** The histories of all declarations of a name as a page. */
export function historyPage(
  name: string,
  histories: readonly DeclarationHistory[],
  part: PagePart,
  filter: HistoryFilter = {},
): Page {
  const isFunction = part === 'function'
  const href = isFunction ? functionUrl(name) : typeUrl(name)
  const all = historyUrl(name, part)
  const place = { path: all, filter, left: MAX_RUNS }
  const view: HistoryView = {
    ...{ query: name, name, href, filter, all },
    histories: histories.map((history) => declarationView(history, isFunction, place)),
  }
  const [first] = view.histories
  const kind = first ? kindText(first.kind) : part
  return {
    template: 'history',
    title: `${kind} ${name} over Linux kernels`,
    description: `${kind} ${name} has ${counted(first?.formCount ?? 0, 'form')} over ${counted(first?.kernels ?? 0, 'Linux kernel')}: since when it is as it is, in each distribution.`,
    path: urlOf(all, { ...filter }),
    part: 'types',
    view,
  }
}

function declarationView(
  { kind, name, forms, series }: DeclarationHistory,
  isFunction: boolean,
  place: HistoryPlace,
): HistoryView['histories'][number] {
  const texts = forms.map((form) => formText(form))
  const groups = groupsOf(series, place, (run, before) => {
    const [form] = run.forms
    return {
      text: form === undefined ? 'not there' : run.forms.map((n) => texts[n]).join('; '),
      changes: run.changes ? changeTexts(run.changes) : cameOrWent(run.forms, before?.forms),
      ...(form !== undefined && {
        href: (isFunction ? functionUrl : typeUrl)(name, nameOf(run.first)),
      }),
    }
  })
  const chart = chartOf(series, ({ forms: [form] }) =>
    form === undefined ? undefined : (forms[form]?.size ?? undefined),
  )
  return {
    kind: kindText(kind),
    forms: forms.slice(0, MAX_FORMS).map((form, i) => ({
      number: i + 1,
      colour: colourOf(i),
      kernels: form.kernels,
      text: texts[i]!,
    })),
    formCount: forms.length,
    kernels: series.reduce((sum, one) => sum + presentIn(one.runs), 0),
    groups,
    ...chart,
    ...(chart.chart && { chartTitle: 'Size in bytes' }),
  }
}

const presentIn = (runs: readonly { forms: readonly number[]; kernels: number }[]): number =>
  runs.reduce((sum, { forms, kernels }) => sum + (forms.length > 0 ? kernels : 0), 0)

function formText({
  size,
  members,
  values,
  declaration,
}: DeclarationHistory['forms'][number]): string {
  const isTag = declaration === 'struct' || declaration === 'union' || declaration === 'enum'
  return [
    !isTag && declaration,
    size !== undefined && `${size} bytes`,
    members !== undefined && (members === 1 ? '1 member' : `${members} members`),
    values !== undefined && (values === 1 ? '1 value' : `${values} values`),
  ]
    .filter(Boolean)
    .join(', ')
}

function cameOrWent(now: readonly number[], before: readonly number[] | undefined): string[] {
  if (!before) return []
  if (now.length === 0) return ['went']
  return before.length === 0 ? ['came'] : ['other types with this name']
}

function changeTexts(changes: FormChanges): string[] {
  const { size, declaration, added, removed, renamed, retyped, moved, omitted } = changes
  return [
    ...(size ? [`${size.old} → ${size.new} bytes`] : []),
    ...(declaration ? [`${declaration.old} → ${declaration.new}`] : []),
    ...(added.length > 0 ? [`added ${listed(added)}`] : []),
    ...(removed.length > 0 ? [`removed ${listed(removed)}`] : []),
    ...renamed.slice(0, MAX_NAMES).map(({ from, to }) => `${from} is now ${to}`),
    ...retyped.slice(0, MAX_NAMES).map(({ name, old, new: now }) => `${name}: ${old} → ${now}`),
    ...(moved > 0 ? [moved === 1 ? '1 member moved' : `${moved} members moved`] : []),
    ...(omitted > 0 ? [`and ${omitted} more changes`] : []),
  ]
}

const listed = (names: readonly string[]): string =>
  names.length > MAX_NAMES
    ? `${names.slice(0, MAX_NAMES).join(', ')} and ${names.length - MAX_NAMES} more`
    : names.join(', ')

/** The histories of a member of all types of a name as a page. */
export function memberPage(
  name: string,
  member: string,
  histories: readonly MemberHistory[],
  filter: HistoryFilter = {},
): Page {
  const path = `${name}.${member}`
  const all = memberUrl(name, member)
  const place = { path: all, filter, left: MAX_RUNS }
  const view: HistoryView = {
    ...{ query: path, name, member, href: `${typeUrl(name)}`, filter, all },
    histories: histories.map((history) => memberView(history, place)),
  }
  const [first] = view.histories
  return {
    template: 'history',
    title: `${path} over Linux kernels`,
    description: `Member ${member} of ${first?.kind ?? 'type'} ${name} over ${counted(first?.kernels ?? 0, 'Linux kernel')}: its offset, size and type, where it came, moved and went.`,
    path: urlOf(all, { ...filter }),
    part: 'types',
    view,
  }
}

function memberView(
  { kind, name, forms, series }: MemberHistory,
  place: HistoryPlace,
): HistoryView['histories'][number] {
  const texts = forms.map(({ type, offset, size, bitfieldSize, value }) =>
    value !== undefined
      ? `= ${value}`
      : [
          type,
          offset !== undefined && `at ${placeOf(offset)}`,
          bitfieldSize ? `${bitfieldSize} bits` : size !== undefined && `${size} bytes`,
        ]
          .filter(Boolean)
          .join(', '),
  )
  const groups = groupsOf(series, place, (run) => ({
    text:
      run.state === 'no_type'
        ? 'the type is not there'
        : run.state === 'no_member'
          ? 'not a member'
          : run.forms.map((n) => texts[n]).join('; '),
    changes: memberChangeTexts(run),
    ...(run.state !== 'no_type' && { href: typeUrl(name, nameOf(run.first)) }),
  }))
  const isValue = forms.some(({ value }) => value !== undefined)
  const chart = chartOf(series, ({ forms: [form] }) => {
    const { offset, value } = forms[form ?? -1] ?? {}
    const number = value === undefined ? offset && offset / 8 : Number(value)
    return offset === 0 ? 0 : Number.isFinite(number) ? number : undefined
  })
  return {
    kind: kindText(kind),
    forms: forms.slice(0, MAX_FORMS).map(({ kernels }, i) => ({
      ...{ number: i + 1, colour: colourOf(i), kernels, text: texts[i]! },
    })),
    formCount: forms.length,
    kernels: series.reduce((sum, one) => sum + presentIn(one.runs), 0),
    groups,
    ...chart,
    ...(chart.chart && { chartTitle: isValue ? 'Value' : 'Offset in bytes' }),
  }
}

function memberChangeTexts({ changes, renamedTo, renamedFrom }: MemberRun): string[] {
  return [
    ...changes.filter((change) => change !== 'renamed'),
    ...(renamedTo === undefined ? [] : [`now called ${renamedTo}`]),
    ...(renamedFrom === undefined ? [] : [`was called ${renamedFrom}`]),
  ]
}

interface AnyRun {
  first: IndexedKernel
  last: IndexedKernel
  kernels: number
  forms: readonly number[]
}

type AnySeries<R> = SeriesName & { kernels: number; runs: readonly R[] }

/** Where a history is shown. */
interface HistoryPlace {
  /** the address of the page of all distributions */
  readonly path: string
  readonly filter: HistoryFilter
  /** runs that the page may still list */
  left: number
}

/** The series by distribution and version, newest version first; kernels that never have it are left out. */
function groupsOf<R extends AnyRun>(
  series: readonly AnySeries<R>[],
  place: HistoryPlace,
  describe: (run: R, before: R | undefined) => Pick<HistoryRun, 'text' | 'changes' | 'href'>,
): HistoryGroup[] {
  const { filter, path } = place
  const present = series.filter(
    ({ runs, distro, version }) =>
      runs.some(({ forms }) => forms.length > 0) &&
      (filter.distro === undefined || filter.distro === distro) &&
      (filter.version === undefined || filter.version === version),
  )
  const grouped = Map.groupBy(present, ({ distro, version }) => `${distro}\0${version}`)
  const groups = [...grouped.values()].sort(
    ([a], [b]) =>
      (a!.distro < b!.distro ? -1 : a!.distro > b!.distro ? 1 : 0) ||
      compareVersions(b!.version, a!.version),
  )
  return groups.map((own, n) => ({
    distro: own[0]!.distro,
    version: own[0]!.version,
    open: n < MAX_OPEN,
    kernels: own.reduce((sum, { kernels }) => sum + kernels, 0),
    forms: new Set(own.flatMap(({ runs }) => runs.flatMap(({ forms }) => forms))).size,
    href: urlOf(path, { distro: own[0]!.distro, version: own[0]!.version }),
    series: [...Map.groupBy(own, runKey).values()].map((equal) => {
      const [one] = equal as [AnySeries<R>]
      const runs = runsOf(one, describe)
      const isListed = runs.length <= place.left
      if (isListed) place.left -= runs.length
      return {
        label: labelOf(equal),
        kernels: equal.reduce((sum, { kernels }) => sum + kernels, 0),
        strip: runs.map(({ forms, width, colour, first, kernels }) => {
          return { forms, width, colour, first, kernels }
        }),
        ...(isListed && { runs }),
      }
    }),
  }))
}

/** A text that is equal for series whose kernels of the same versions have the same forms. */
const runKey = <R extends AnyRun>({ runs }: AnySeries<R>): string =>
  JSON.stringify(
    runs.map(({ first, last, forms, kernels }) => [
      versionOf(first),
      versionOf(last),
      forms,
      kernels,
    ]),
  )

/** The architectures of series, each with its flavours. */
function labelOf(series: readonly SeriesName[]): string {
  const flavours = (own: readonly SeriesName[]) =>
    own.map(({ flavour }) => flavour.replace(/^-/, '') || 'default').join(', ')
  return [...Map.groupBy(series, ({ arch }) => arch)]
    .map(([arch, own]) => `${arch} ${flavours(own)}`)
    .join('; ')
}

function runsOf<R extends AnyRun>(
  { kernels, runs }: AnySeries<R>,
  describe: (run: R, before: R | undefined) => Pick<HistoryRun, 'text' | 'changes' | 'href'>,
): HistoryRun[] {
  return runs.map((run, i) => {
    const before = runs[i - 1]
    const { href, ...words } = describe(run, before)
    const form = run.forms[0]
    return {
      first: run.first.release,
      last: run.last.release,
      firstHref: kernelUrl(nameOf(run.first)),
      lastHref: kernelUrl(nameOf(run.last)),
      kernels: run.kernels,
      width: Math.round((run.kernels / kernels) * 1000) / 10,
      forms: run.forms.map((one) => one + 1),
      colour: form === undefined ? 'absent' : colourOf(form),
      ...words,
      ...(href !== undefined && { href }),
      ...(before && { diff: diffUrl(nameOf(before.last), nameOf(run.first)) }),
    }
  })
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`

/** A kind in words. */
const kindText = (kind: string): string =>
  kind === 'func' ? 'function' : kind === 'fwd' ? 'declaration' : kind.replace('_', ' ')

/** Colours repeat after twelve forms; the number tells equal ones apart. */
const colourOf = (form: number): string => `f${form % 12}`

function chartOf<R extends AnyRun>(
  series: readonly AnySeries<R>[],
  numberOf: (run: R) => number | undefined,
): Pick<HistoryView['histories'][number], 'chart' | 'legend'> {
  const lines = series
    .map(
      ({ distro, version, arch, flavour, runs }): ChartLine => ({
        label: `${distro} ${version} ${arch}${flavour === '' ? '' : ` ${flavour.replace(/^-/, '')}`}`,
        points: runs.flatMap((run) => {
          const value = numberOf(run)
          const ends = [run.first, run.last].map(versionOf)
          return [...new Set(ends)].map((version) => ({ version, value }))
        }),
      }),
    )
    .filter(({ points }) => points.some(({ value }) => value !== undefined))
  const distinct = new Map(lines.map((line) => [JSON.stringify(line.points), line]))
  const shown = [...distinct.values()].slice(0, MAX_CHART_LINES)
  const versions = [...new Set(shown.flatMap(({ points }) => points.map(({ version }) => version)))]
  const sorted = versions.sort(compareVersions)
  const svg = drawChart(shown, sorted, `A line for each of ${shown.length} series`)
  if (!svg) return { legend: [] }
  const legend = shown.map(({ label }, i) => ({ label, ...lineStyle(i) }))
  return { chart: svg, legend }
}

/**
 * The version of a kernel on a chart: that of its package, such as `6.1.190-1`, since many releases have no more than
 * `6.1.0`; else the numbers of its release.
 */
function versionOf({ release, packageVersion }: IndexedKernel): string {
  const [, line = ''] = /^(\d+\.\d+)/.exec(release) ?? []
  const text = line !== '' && packageVersion.startsWith(`${line}.`) ? packageVersion : release
  return /^\d+(?:[.-]\d+)*/.exec(text)?.[0] ?? release
}

/** What the page of a name says of its history. */
export interface HistorySummary {
  readonly href: string
  readonly forms: number
}
