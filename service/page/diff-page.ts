/* /diff/A..B: what changed between two kernels, structs first. /diff: the choice of the two. */
import type { BtfDiff, MemberChange, TypeChange, TypeName, TypeSort } from '../../bpf/index.ts'
import type { KernelRow, KernelTable } from './kernel-table.ts'
import { placeOf } from './layout-picture.ts'
import type { Page } from './render.ts'
import { choiceOf, type KernelChoice } from './type-page.ts'
import { diffUrl, functionUrl, kernelUrl, typeUrl, urlOf } from './url.ts'

export const DIFF_CHANGES = ['changed', 'added', 'removed'] as const
type DiffChange = (typeof DIFF_CHANGES)[number]

/** Sorts of types in the order of a page. */
export const DIFF_KINDS = [
  'struct',
  'union',
  'enum',
  'func',
  'typedef',
  'fwd',
  'int',
  'float',
] as const

/** Entries of one page, and lines of one entry. */
const LENGTH = 150
const MAX_LINES = 40

export interface DiffQuery {
  readonly kind?: TypeSort
  readonly change?: DiffChange
  /** a part of the name */
  readonly name?: string
  /** from 1 */
  readonly page?: number
}

interface DiffLine {
  readonly sign: '+' | '-' | '~'
  readonly text: string
}

interface DiffEntryView extends TypeName {
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
    readonly kind: TypeSort
    readonly counts: Record<DiffChange, number>
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

export function diffPage(
  before: KernelRow,
  after: KernelRow,
  diff: BtfDiff,
  query: DiffQuery,
): Page {
  const path = diffUrl(before.name, after.name)
  const url = ({ page, ...rest }: DiffQuery) =>
    urlOf(path, { ...rest, ...(page !== undefined && page > 1 && { page: String(page) }) })
  const entries = entriesOf(diff)
  const { kind, change, name, page = 1 } = query
  const found = entries.filter(
    (entry) =>
      (kind === undefined || entry.kind === kind) &&
      (change === undefined || entry.change === change) &&
      (name === undefined || entry.name.includes(name)),
  )
  const shown = found.slice((page - 1) * LENGTH, page * LENGTH)
  const hrefsOf = (sort: TypeSort) =>
    Object.fromEntries(DIFF_CHANGES.map((one) => [one, url({ kind: sort, change: one })]))
  const view: DiffView = {
    before: endOf(before),
    after: endOf(after),
    reverse: diffUrl(after.name, before.name),
    isEqual: entries.length === 0,
    counts: DIFF_KINDS.map((sort) => ({
      kind: sort,
      counts: countsOf(entries.filter((entry) => entry.kind === sort)),
      href: url({ kind: sort }),
      hrefs: hrefsOf(sort) as Record<DiffChange, string>,
    })).filter(({ counts }) => counts.added + counts.removed + counts.changed > 0),
    chosen: query,
    found: found.length,
    entries: shown.map((entry) => viewOf(entry, before, after)),
    all: path,
    ...(page * LENGTH < found.length && { next: url({ ...query, page: page + 1 }) }),
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

type DiffedType = TypeChange & { readonly change: DiffChange }

function entriesOf({ added, removed, changed }: BtfDiff): DiffedType[] {
  const rank = ({ kind }: TypeName) => DIFF_KINDS.indexOf(kind)
  const changes = (list: readonly TypeChange[], change: DiffChange): DiffedType[] =>
    list.map((type) => ({ ...type, change }))
  return [
    ...changes(changed, 'changed'),
    ...changes(added, 'added'),
    ...changes(removed, 'removed'),
  ].sort(
    (a, b) => rank(a) - rank(b), // stable: changes first, each by name
  )
}

function countsOf(entries: readonly DiffedType[]): Record<DiffChange, number> {
  const counts = { changed: 0, added: 0, removed: 0 }
  for (const { change } of entries) counts[change]++
  return counts
}

const PAGED: ReadonlySet<TypeSort> = new Set(['struct', 'union', 'enum', 'typedef', 'func'])

function viewOf(entry: DiffedType, before: KernelRow, after: KernelRow): DiffEntryView {
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
    ...(PAGED.has(kind) && { href: (kind === 'func' ? functionUrl : typeUrl)(name, kernel) }),
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
