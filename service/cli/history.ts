import type { DeclarationKind } from '../../bpf/index.ts'
import { canonicalArch } from '../../storage/index.ts'
import type {
  DeclarationHistory,
  FormChanges,
  FormSummary,
  MemberHistory,
  MemberRun,
  MemberVariant,
} from '../declarations/answers.ts'
import { joinHistories } from '../declarations/history.ts'
import type { IndexReader } from '../declarations/reader.ts'
import { jsonOf } from '../json.ts'
import { didYouMean } from '../kernel/similar.ts'
import { withoutTag } from './dump.ts'
import { columns, counted, linesOf, print, printable } from './output.ts'
import { askIndex, type TypeIndexOptions } from './type-index.ts'

interface HistoryOptions extends TypeIndexOptions {
  kind?: DeclarationKind[]
  distro?: string[]
  distroVersion?: string[]
  arch?: string[]
}

/** `btfmill history`. Returns the exit status: 1 if no kernel has the name. */
export async function run(text: string, options: HistoryOptions): Promise<number> {
  const [name, member] = partsOf(withoutTag(text))
  const lines =
    member === undefined
      ? await declarationLines(name, options)
      : await memberLines(name, member, options)
  if (lines) {
    await print(linesOf(lines))
    return 0
  }
  console.error(printable(`btfmill: no kernel declares ${text}${await hint(text, options)}`))
  return 1
}

/** The name of a type and the path of a member. */
function partsOf(text: string): [name: string, member?: string] {
  const dot = text.indexOf('.')
  return dot <= 0 ? [text] : [text.slice(0, dot), text.slice(dot + 1)]
}

const segment = (name: string): string => encodeURIComponent(name)

async function declarationLines(
  name: string,
  options: HistoryOptions,
): Promise<string[] | undefined> {
  const { kind: kinds, json } = options
  const pages = await pagesOf<{ declarations: DeclarationHistory[] }>(
    options,
    (index) => some('declarations', index.history(name, kinds)),
    { path: `v1/types/${segment(name)}/history`, query: { kind: kinds } },
  )
  const all = pages && joinHistories(pages.map(({ declarations }) => declarations))
  const shown = all?.map((one) => ({ ...one, series: chosen(one.series, options) }))
  return shown?.flatMap((one) => (json ? [jsonOf(one)] : declarationText(one)))
}

async function memberLines(
  name: string,
  member: string,
  options: HistoryOptions,
): Promise<string[] | undefined> {
  const pages = await pagesOf<{ members: MemberHistory[] }>(
    options,
    (index) => some('members', index.memberHistory(name, member)),
    { path: `v1/types/${segment(name)}/members/${segment(member)}/history` },
  )
  const all = pages && joinHistories(pages.map(({ members }) => members))
  const shown = all?.map((one) => ({ ...one, series: chosen(one.series, options) }))
  return shown?.flatMap((one) => (options.json ? [jsonOf(one)] : memberText(one)))
}

/** The pages of an answer. An index has it in one. */
async function pagesOf<A extends object>(
  options: TypeIndexOptions,
  local: (index: IndexReader) => A | undefined,
  { path, query }: { path: string; query?: Record<string, readonly string[] | undefined> },
): Promise<A[] | undefined> {
  const pages: A[] = []
  for (let cursor: string | undefined; ; ) {
    const remote = { path, query: { ...query, cursor } }
    const page = await askIndex<A & { next?: string }>(options, local, remote)
    if (!page) return undefined
    pages.push(page)
    if (page.next === undefined) return pages
    cursor = page.next
  }
}

/** An answer as the service has it; undefined for none. */
const some = <K extends string, T>(key: K, all: T[]): { [_ in K]: T[] } | undefined =>
  all.length === 0 ? undefined : ({ [key]: all } as { [_ in K]: T[] })

/** The series that the filters choose. */
function chosen<S extends { distro: string; version: string; arch: string }>(
  series: readonly S[],
  { distro, distroVersion, arch }: HistoryOptions,
): S[] {
  const has = (wanted: readonly string[] | undefined, value: string) =>
    wanted === undefined || wanted.includes(value)
  return series.filter(
    (one) =>
      has(distro, one.distro) &&
      has(distroVersion, one.version) &&
      has(arch?.map(canonicalArch), one.arch),
  )
}

async function hint(text: string, options: HistoryOptions): Promise<string> {
  const q = withoutTag(text)
  const search = (index: IndexReader) => index.search(q)
  const answer = await askIndex(options, search, { path: 'v1/search', query: { q } })
  const near = answer?.found
    .filter(({ kind }) => kind !== 'kernel')
    .map(({ name, of }) => (of ? `${of.name}.${name}` : name))
  return near?.length ? `: ${didYouMean([...new Set(near)].slice(0, 3))}` : ''
}

type Rows = (readonly string[])[]

function declarationText({ kind, name, forms, series }: DeclarationHistory): string[] {
  const head = printable(`${kind} ${name}: ${counted(forms.length, 'form')}`)
  return [
    head,
    ...series.flatMap(({ runs, ...of }) => {
      const rows = runs.map((run): readonly string[] => [
        ...endsOf(run),
        run.forms.length === 0
          ? 'not there'
          : run.forms.map((form) => formText(forms[form]!)).join('; or '),
        run.changes ? changesText(run.changes) : '',
      ])
      return [seriesText(of), ...indented(rows)]
    }),
  ]
}

function memberText({ kind, name, member, forms, series }: MemberHistory): string[] {
  return [
    printable(`${kind} ${name}, ${member}`),
    ...series.flatMap(({ runs, ...of }) => {
      const rows = runs.map((run): readonly string[] => [
        ...endsOf(run),
        run.state === 'present'
          ? run.forms.map((form) => placeText(forms[form]!)).join('; or ')
          : run.state === 'no_type'
            ? `no ${name}`
            : 'not there',
        memberChangesText(run),
      ])
      return [seriesText(of), ...indented(rows)]
    }),
  ]
}

const seriesText = (of: {
  distro: string
  version: string
  arch: string
  flavour: string
  kernels: number
}): string =>
  printable(
    `  ${[of.distro, of.version, of.arch, of.flavour].join(' ').trim()}: ${counted(of.kernels, 'kernel')}`,
  )

const indented = (rows: Rows): string[] =>
  columns(rows.map((row) => ['   ', ...row.map(printable)]))

function endsOf({ first, last, kernels }: Pick<MemberRun, 'first' | 'last' | 'kernels'>): string[] {
  return [first.release, kernels > 1 ? `to ${last.release}` : '', counted(kernels, 'kernel')]
}

function formText({ size, declaration, members, values }: FormSummary): string {
  const parts = [
    ...(size !== undefined && (members !== undefined || values !== undefined)
      ? [`${size} bytes`]
      : []),
    ...(members !== undefined ? [counted(members, 'member')] : []),
    ...(values !== undefined ? [counted(values, 'value')] : []),
  ]
  return parts.length > 0 ? parts.join(', ') : (declaration ?? `${size} bytes`)
}

/** Names of one change in a line. */
const SHOWN = 4

function changesText({
  added,
  removed,
  renamed,
  retyped,
  moved,
  declaration,
  omitted,
}: FormChanges): string {
  const list = (sign: string, names: readonly string[]) => {
    const more = names.length > SHOWN ? `, and ${names.length - SHOWN} more` : ''
    return names.length === 0 ? [] : [`${sign} ${names.slice(0, SHOWN).join(', ')}${more}`]
  }
  return [
    ...list('added', added),
    ...list('removed', removed),
    ...list(
      'renamed',
      renamed.map(({ from, to }) => `${from} to ${to}`),
    ),
    ...list(
      'changed',
      retyped.map(({ name }) => name),
    ),
    ...(moved > 0 ? [`${moved} moved`] : []),
    ...(declaration ? [`was ${declaration.old}`] : []),
    ...(omitted > 0 ? [`${omitted} more`] : []),
  ].join('; ')
}

function placeText({ type, offset, bitfieldSize, size, value }: MemberVariant): string {
  if (value !== undefined) return `= ${value}`
  const bits = offset ?? 0
  const where = bitfieldSize || bits % 8 !== 0 ? `bit ${bits}` : `offset ${bits / 8}`
  return `${type}, ${where}, ${bitfieldSize ? counted(bitfieldSize, 'bit') : counted(size ?? 0, 'byte')}`
}

function memberChangesText({ changes, renamedTo, renamedFrom }: MemberRun): string {
  const words = changes.filter((change) => change !== 'renamed')
  return [
    ...words,
    ...(renamedTo !== undefined ? [`renamed to ${renamedTo}`] : []),
    ...(renamedFrom !== undefined ? [`was ${renamedFrom}`] : []),
  ].join(', ')
}
