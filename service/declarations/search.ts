/*
 * Searches an index: kernels by release, build-id or digest; declarations, members and enumerators by name. Exact names
 * come first, then names that begin with the text, then those that contain it. `TYPE.MEMBER` finds members of a type.
 */
import type { DatabaseSync } from 'node:sqlite'
import { DECLARATION_KINDS, type DeclarationKind } from '../../bpf/index.ts'
import type { Found, FoundKind, IndexedKernel } from './answers.ts'
import type { OrderedSeries } from './order.ts'
import type { StoredDeclaration } from './stored.ts'

/** Characters of a text that is searched for inside of names; a shorter one finds their beginnings. */
const MIN_INSIDE = 3
/** Rows of one step. */
const MAX_ROWS = 5000

export interface SearchQuery {
  text: string
  kinds?: readonly FoundKind[] | undefined
  /** results to give, and to leave out before them */
  limit: number
  skip: number
}

interface SearchedIndex {
  database: DatabaseSync
  series: readonly OrderedSeries[]
  /** a declaration by its number */
  get(id: number): StoredDeclaration
}

/** Finds what a query asks for, at most `limit` results. */
export function searchIn(index: SearchedIndex, query: SearchQuery): Found[] {
  const found: Found[] = []
  let skip = query.skip
  for (const one of results(index, query)) {
    if (skip-- > 0) continue
    found.push(one)
    if (found.length === query.limit) break
  }
  return found
}

function* results(index: SearchedIndex, { text: whole, kinds }: SearchQuery): Generator<Found> {
  const [, tag, untagged] = /^(struct|union|enum) +(.*)$/s.exec(whole) ?? []
  const text = untagged ?? whole
  if (text === '') return
  const wants = (kind: FoundKind) =>
    (kinds === undefined || kinds.includes(kind)) && (tag === undefined || kind === tag)
  const seen = new Set<string>()
  function* fresh(all: Iterable<[key: string, make: () => Found[]]>): Generator<Found> {
    for (const [key, make] of all) {
      if (seen.has(key)) continue
      seen.add(key)
      for (const one of make()) if (wants(one.kind)) yield one
    }
  }
  if (wants('kernel'))
    for (const kernel of kernelsNamed(index.series, text)) yield kernelFound(kernel)
  const isElement = wants('member') || wants('enumerator')
  const isDeclaration = DECLARATION_KINDS.some(wants)
  yield* fresh(membersOf(index, text, isElement || tag !== undefined))
  for (const match of ['exact', 'prefix', 'inside'] as const) {
    if (match === 'inside' && text.length < MIN_INSIDE) return
    if (isDeclaration) yield* fresh(declarationsNamed(index, text, match, wants))
    if (isElement) yield* fresh(elementsNamed(index, text, match))
  }
}

const kernelFound = (kernel: IndexedKernel): Found => ({
  kind: 'kernel',
  name: kernel.release,
  kernel,
})

/** Kernels whose release contains a text, or whose build-id or digest begins with it; the newest of a series first. */
function* kernelsNamed(series: readonly OrderedSeries[], text: string): Generator<IndexedKernel> {
  const isHex = /^[0-9a-f]{8,64}$/i.test(text)
  const lower = text.toLowerCase()
  const matches = ({ release, build, sha256, ...kernel }: IndexedKernel) =>
    release.toLowerCase().includes(lower) ||
    (isHex && (build?.startsWith(lower) || sha256.startsWith(lower))) ||
    `${kernel.distro}/${kernel.version}/${kernel.arch}/${release}` === text
  // a single letter or a common syllable would list all kernels before any type
  if (!/\d/.test(text)) return
  for (const { kernels } of series) yield* kernels.toReversed().filter(matches)
}

type NameMatch = 'exact' | 'prefix' | 'inside'

/** The condition on a name, with the values that it takes. */
function condition(match: NameMatch, text: string): [sql: string, ...values: string[]] {
  if (match === 'exact') return ['name = ?', text]
  if (match === 'prefix') return ['name >= ? AND name < ?', text, `${text}\u{10ffff}`]
  return ["name LIKE ? ESCAPE '\\'", `%${text.replace(/[\\%_]/g, '\\$&')}%`] // in any case
}

function* declarationsNamed(
  index: SearchedIndex,
  text: string,
  match: NameMatch,
  wants: (kind: FoundKind) => boolean,
): Generator<[string, () => Found[]]> {
  const [where, ...values] = condition(match, text)
  const numbers = DECLARATION_KINDS.flatMap((kind, number) => (wants(kind) ? [number] : []))
  const rows = index.database
    .prepare(
      `SELECT id FROM declarations WHERE ${where} AND kind IN (${numbers.join()}) LIMIT ${MAX_ROWS}`,
    )
    .all(...values)
  for (const { id } of rows)
    yield [
      `${id}`,
      () => {
        const { kind, name, forms } = index.get(id as number)
        return [{ kind, name, forms: forms.length }]
      },
    ]
}

function* elementsNamed(
  index: SearchedIndex,
  text: string,
  match: NameMatch,
): Generator<[string, () => Found[]]> {
  const [where, ...values] = condition(match, text)
  const rows = index.database
    .prepare(`SELECT name, declaration FROM elements WHERE ${where} LIMIT ${MAX_ROWS}`)
    .all(...values)
  for (const { name, declaration } of rows)
    yield [
      `${declaration} ${name}`,
      () => elementFound(index.get(declaration as number), name as string),
    ]
}

function elementFound(
  { kind, name: of, values, members }: StoredDeclaration,
  name: string,
): Found[] {
  const isOf = { of: { kind, name: of } }
  // a helper and a map type are their own enumerators
  if (kind === 'helper' || kind === 'map_type') return []
  if (members.some(([own]) => own === name)) return [{ kind: 'member', name, ...isOf }]
  return values.some(([own]) => own === name) ? [{ kind: 'enumerator', name, ...isOf }] : []
}

/** Kinds whose declarations have members or values. */
const WITH_ELEMENTS: readonly DeclarationKind[] = ['struct', 'union', 'enum', 'typedef']

/** The members of `TYPE.MEMBER`: the member itself, then those whose names begin so. */
function* membersOf(
  index: SearchedIndex,
  text: string,
  wanted: boolean,
): Generator<[string, () => Found[]]> {
  const dot = text.indexOf('.')
  if (dot <= 0 || !wanted) return
  const [type, member] = [text.slice(0, dot), text.slice(dot + 1)]
  const rows = index.database
    .prepare(
      `SELECT id FROM declarations WHERE name = ? AND kind IN (${WITH_ELEMENTS.map((kind) => DECLARATION_KINDS.indexOf(kind)).join()})`,
    )
    .all(type)
  for (const { id } of rows) {
    const declaration = index.get(id as number)
    const all = [...declaration.members, ...declaration.values].map(([name]) => name)
    const names = [...new Set(all)].filter((name) => name !== '' && name.startsWith(member))
    names.sort((a, b) => Number(b === member) - Number(a === member))
    for (const name of names) yield [`${id} ${name}`, () => elementFound(declaration, name)]
  }
}
