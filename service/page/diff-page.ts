/*
 * /diff/A..B: what changed between two kernels, structs first. /diff: the choice of the two. The changes come from the
 * index of all types, in pages, or from a comparison of the two BTFs.
 */
import type { BtfDiff, DeclarationKind, MemberChange, TypeChange } from '../../bpf/index.ts'
import type { DiffAnswer, DiffEntry } from '../declarations/answers.ts'
import type { KernelRow, KernelTable } from './kernel-table.ts'
import { placeOf } from './layout-picture.ts'
import type { Page } from './render.ts'
import { choiceOf, type KernelChoice } from './type-page.ts'
import { diffUrl, functionUrl, kernelUrl, typeUrl, urlOf } from './url.ts'

export const DIFF_CHANGES = ['changed', 'added', 'removed'] as const
type DiffChange = (typeof DIFF_CHANGES)[number]

/** Kinds of declarations in the order of a page. */
export const DIFF_KINDS = [
  ...['struct', 'union', 'enum', 'func', 'tracepoint', 'kfunc', 'helper', 'map_type'],
  ...['typedef', 'fwd', 'int', 'float'],
] as DeclarationKind[]

/** Entries of one page, and lines of one entry. */
export const DIFF_LENGTH = 150
const MAX_LINES = 40

export interface DiffQuery {
  readonly kind?: DeclarationKind
  readonly change?: DiffChange
  /** a part of the name */
  readonly name?: string
  /** from 1 */
  readonly page?: number
}

type KindCounts = Record<DiffChange, number>

/** A page of differences, and how many there are of each kind. */
export interface DiffParts {
  readonly counts: ReadonlyMap<DeclarationKind, KindCounts>
  readonly entries: readonly DiffEntry[]
  /** entries of all pages */
  readonly found: number
  readonly hasNext: boolean
}

interface DiffLine {
  readonly sign: '+' | '-' | '~'
  readonly text: string
}

interface DiffEntryView {
  readonly kind: DeclarationKind
  readonly name: string
  readonly change: DiffChange
  /** its page in the newer kernel, or in the older one if it is removed */
  readonly href?: string
  /** what changed of it as a whole */
  readonly summary?: string
  readonly lines: readonly DiffLine[]
  readonly omitted: number
}

interface DiffEnd {
  readonly name: string
  readonly release: string
  readonly distro: string
  readonly href: string
}

export interface DiffView {
  readonly before: DiffEnd
  readonly after: DiffEnd
  readonly reverse: string
  readonly isEqual: boolean
  readonly counts: readonly {
    readonly kind: DeclarationKind
    readonly counts: KindCounts
    readonly href: string
    readonly hrefs: Record<DiffChange, string>
  }[]
  readonly chosen: DiffQuery
  readonly found: number
  readonly entries: readonly DiffEntryView[]
  readonly all: string
  readonly next?: string
  readonly previous?: string
}

/** The page of a whole diff that a query asks for. */
export function partsOf(diff: BtfDiff, { kind, change, name, page = 1 }: DiffQuery): DiffParts {
  const entries = entriesOf(diff)
  const found = entries.filter(
    (entry) =>
      (kind === undefined || entry.kind === kind) &&
      (change === undefined || entry.change === change) &&
      (name === undefined || entry.name.includes(name)),
  )
  return {
    counts: countsOf(entries),
    entries: found.slice((page - 1) * DIFF_LENGTH, page * DIFF_LENGTH),
    found: found.length,
    hasNext: found.length > page * DIFF_LENGTH,
  }
}

/** A page of the index; `all` has the counts of all kinds. */
export function partsOfAnswer(answer: DiffAnswer, all: DiffAnswer['counts']): DiffParts {
  const sum = answer.counts.reduce(
    (total, { added, removed, changed }) => total + added + removed + changed,
    0,
  )
  return {
    counts: new Map(all.map(({ kind, ...counts }) => [kind, counts])),
    entries: answer.entries,
    found: sum,
    hasNext: answer.next !== undefined,
  }
}

export function diffPage(
  before: KernelRow,
  after: KernelRow,
  { counts, entries, found, hasNext }: DiffParts,
  query: DiffQuery,
): Page {
  const path = diffUrl(before.name, after.name)
  const url = ({ page, ...rest }: DiffQuery) =>
    urlOf(path, { ...rest, ...(page !== undefined && page > 1 && { page: String(page) }) })
  const { kind, page = 1 } = query
  const hrefsOf = (one: DeclarationKind) =>
    Object.fromEntries(DIFF_CHANGES.map((change) => [change, url({ kind: one, change })]))
  const view: DiffView = {
    before: endOf(before),
    after: endOf(after),
    reverse: diffUrl(after.name, before.name),
    isEqual: counts.size === 0,
    counts: DIFF_KINDS.flatMap((one) => {
      const of = counts.get(one)
      if (!of) return []
      const hrefs = hrefsOf(one) as Record<DiffChange, string>
      return { kind: one, counts: of, href: url({ kind: one }), hrefs }
    }),
    chosen: query,
    found,
    entries: entries.map((entry) => viewOf(entry, before, after)),
    all: path,
    ...(hasNext && { next: url({ ...query, page: page + 1 }) }),
    ...(page > 1 && { previous: url({ ...query, page: page - 1 }) }),
  }
  const what = kind === undefined ? 'types and functions' : `${kind}s`
  return {
    template: 'diff',
    title: `${before.kernel.release} to ${after.kernel.release}: what changed`,
    description: `Which ${what} changed between Linux ${before.kernel.release} (${before.kernel.distro} ${before.kernel.version}) and ${after.kernel.release} (${after.kernel.distro} ${after.kernel.version}): members, offsets, prototypes.`,
    path: url(query),
    part: 'diff',
    view,
  }
}

const endOf = ({ name, kernel }: KernelRow): DiffEnd => ({
  name,
  release: kernel.release,
  distro: `${kernel.distro} ${kernel.version} ${kernel.arch}`,
  href: kernelUrl(name),
})

function entriesOf({ added, removed, changed }: BtfDiff): DiffEntry[] {
  const rank = ({ kind }: DiffEntry) => DIFF_KINDS.indexOf(kind)
  const changes = (list: readonly TypeChange[], change: DiffChange) =>
    list.map((type) => ({ ...type, change }) as DiffEntry)
  return [
    ...changes(changed, 'changed'),
    ...changes(added, 'added'),
    ...changes(removed, 'removed'),
  ].sort((a, b) => rank(a) - rank(b)) // stable: changes first, each by name
}

function countsOf(entries: readonly DiffEntry[]): Map<DeclarationKind, KindCounts> {
  const counts = new Map<DeclarationKind, KindCounts>()
  for (const { kind, change } of entries) {
    const of = counts.get(kind) ?? { changed: 0, added: 0, removed: 0 }
    of[change]++
    counts.set(kind, of)
  }
  return counts
}

/** Kinds with a page of their own, and whether it is that of functions. */
const PAGED: Partial<Record<DeclarationKind, 'type' | 'function'>> = {
  struct: 'type',
  union: 'type',
  enum: 'type',
  typedef: 'type',
  func: 'function',
}

function viewOf(entry: DiffEntry, before: KernelRow, after: KernelRow): DiffEntryView {
  const { kind, name, change, size, declaration, members, values } = entry
  const { name: kernel } = change === 'removed' ? before : after
  const lines: DiffLine[] = [
    ...(declaration
      ? [
          { sign: '-' as const, text: declaration.old },
          { sign: '+' as const, text: declaration.new },
        ]
      : []),
    ...(members?.removed ?? []).map((one) => ({
      sign: '-' as const,
      text: `${one.type} ${one.name}${one.bitfieldSize ? `:${one.bitfieldSize}` : ''} at ${placeOf(one.offset)}`,
    })),
    ...(members?.added ?? []).map((one) => ({
      sign: '+' as const,
      text: `${one.type} ${one.name}${one.bitfieldSize ? `:${one.bitfieldSize}` : ''} at ${placeOf(one.offset)}`,
    })),
    ...memberLines(members?.changed ?? []),
    ...(values?.removed ?? []).map((one) => ({
      sign: '-' as const,
      text: `${one.name} = ${one.value}`,
    })),
    ...(values?.added ?? []).map((one) => ({
      sign: '+' as const,
      text: `${one.name} = ${one.value}`,
    })),
    ...(values?.changed ?? []).map((one) => ({
      sign: '~' as const,
      text: `${one.name} = ${one.value.old} → ${one.value.new}`,
    })),
  ]
  return {
    ...{ kind, name, change },
    ...(PAGED[kind] && {
      href: (PAGED[kind] === 'function' ? functionUrl : typeUrl)(name, kernel),
    }),
    ...(size && { summary: `${size.old} → ${size.new} bytes` }),
    lines: lines.slice(0, MAX_LINES),
    omitted: Math.max(lines.length - MAX_LINES, 0),
  }
}

/** Members that only moved, by the same distance and after each other, share a line. */
function memberLines(changed: readonly MemberChange[]): DiffLine[] {
  const lines: DiffLine[] = []
  for (let i = 0; i < changed.length; ) {
    const first = changed[i]!
    const distance = distanceOf(first)
    let end = i + 1
    while (distance !== undefined && changed[end] && distanceOf(changed[end]!) === distance) end++
    const text =
      end - i > 1
        ? `${first.name} … ${changed[end - 1]!.name}: ${end - i} members moved by ${distance! > 0 ? '+' : '-'}${placeOf(Math.abs(distance!))}`
        : memberText(first)
    lines.push({ sign: '~', text })
    i = end
  }
  return lines
}

const distanceOf = ({ offset, type, bitfieldSize, size }: MemberChange): number | undefined =>
  !offset || type || bitfieldSize || size ? undefined : offset.new - offset.old

function memberText({ name, type, offset, bitfieldSize, size }: MemberChange): string {
  const changes = [
    type && `${type.old} → ${type.new}`,
    offset && `at ${placeOf(offset.old)} → ${placeOf(offset.new)}`,
    bitfieldSize && `${bitfieldSize.old} → ${bitfieldSize.new} bits`,
    size && `${size.old} → ${size.new} bytes`,
  ]
  return `${name}: ${changes.filter(Boolean).join('; ')}`
}

export interface DiffFormView {
  readonly before: KernelChoice | undefined
  readonly after: KernelChoice | undefined
  /** the newest steps of each series */
  readonly steps: readonly { readonly text: string; readonly href: string }[]
}

/** Series whose newest step is offered. */
const MAX_STEPS = 40

export function diffFormPage(table: KernelTable): Page {
  const newest = table.newest()
  const older = newest && table.series(newest).filter(({ served }) => served)[1]
  const steps = table.newestOfSeries().flatMap((row) => {
    const [last, before] = table.series(row).filter(({ served }) => served)
    if (!last || !before) return []
    const { distro, version, arch } = row.kernel
    return {
      text: `${distro} ${version} ${arch}: ${before.kernel.release} to ${last.kernel.release}`,
      href: diffUrl(before.name, last.name),
    }
  })
  const choice = (row: KernelRow | undefined) => row && choiceOf(table, row, kernelUrl)
  const view: DiffFormView = {
    before: choice(older ?? newest),
    after: choice(newest),
    steps: steps.slice(0, MAX_STEPS),
  }
  return {
    template: 'diff-form',
    title: 'Compare two Linux kernels',
    description:
      'What changed between two Linux kernels: members of structs, offsets, enumerators, prototypes of functions.',
    path: '/diff',
    part: 'diff',
    view,
  }
}
