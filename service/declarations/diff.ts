/*
 * What differs between two BTFs of an index, without opening them: the declarations of which only one has some form. The
 * comparison is apart from its pages: people turn pages and choose filters, and the comparison takes longer than a page.
 */
import type { DatabaseSync } from 'node:sqlite'
import {
  DECLARATION_KINDS,
  type DeclarationKind,
  diffShapes,
  type TypeShape,
} from '../../bpf/index.ts'
import type { DiffAnswer, DiffEntry } from './answers.ts'
import { type StoredDeclaration, shapeOf } from './stored.ts'
import { formsOf } from './tree.ts'

type DeclarationChange = DiffEntry['change']

/** Which of the declarations that differ to give. */
export interface DiffFilter {
  kinds?: readonly DeclarationKind[] | undefined
  /** only declarations of this name */
  name?: string | undefined
  /** only declarations whose name contains this */
  part?: string | undefined
  change?: DeclarationChange | undefined
}

interface DiffPage extends DiffFilter {
  limit: number
  skip: number
}

interface DiffedIndex {
  database: DatabaseSync
  /** by form: the number of its declaration */
  owners: Int32Array
  get(id: number): StoredDeclaration
}

interface Diff extends Pick<DiffAnswer, 'counts' | 'entries'> {
  /** whether there are declarations behind this page */
  more: boolean
}

/** Two BTFs of an index, compared. */
export interface ComparedBtfs {
  /** by number of form: 1 if the BTF has it */
  readonly before: Uint8Array
  readonly after: Uint8Array
  /** the declarations that differ, by kind, then by name */
  readonly differing: readonly NamedDeclaration[]
}

interface NamedDeclaration {
  readonly id: number
  readonly kind: number
  readonly name: string
  readonly change: DeclarationChange
}

const [SAME, DIFFERS, IN_OLD, IN_NEW] = [0, 1, 2, 4]

/** Compares two BTFs by number; with `name`, only the declarations of this name, which is faster. */
export function compareBtfs(
  { database, owners }: Pick<DiffedIndex, 'database' | 'owners'>,
  old: number,
  now: number,
  name?: string,
): ComparedBtfs {
  const before = formsOf(database, old, owners.length)
  const after = formsOf(database, now, owners.length)
  const states = new Uint8Array(owners.length) // there are no more declarations than forms
  for (let form = 0; form < owners.length; form++) {
    const owner = owners[form]!
    const was = before[form]
    const is = after[form]
    if (was === 1) states[owner]! |= IN_OLD
    if (is === 1) states[owner]! |= IN_NEW
    if (was !== is) states[owner]! |= DIFFERS
  }
  return { before, after, differing: differingNames(database, states, name) }
}

/** A page of declarations that differ; one with several types of a name has several entries. */
export function diffPageOf(
  index: Pick<DiffedIndex, 'get'>,
  { before, after, differing }: ComparedBtfs,
  { skip, limit, ...filter }: DiffPage,
): Diff {
  const found = filtered(differing, filter)
  return {
    counts: countsOf(found),
    entries: found
      .slice(skip, skip + limit)
      .flatMap(({ id }) => entriesOf(index.get(id), before, after)),
    more: found.length > skip + limit,
  }
}

function differingNames(
  database: DatabaseSync,
  states: Uint8Array,
  only: string | undefined,
): NamedDeclaration[] {
  const where = only === undefined ? '' : ' WHERE name = ?'
  const select = database.prepare(`SELECT id, kind, name FROM declarations${where}`)
  const found: NamedDeclaration[] = []
  for (const row of select.iterate(...(only === undefined ? [] : [only]))) {
    const id = row.id as number
    const state = states[id] ?? SAME
    if ((state & DIFFERS) === 0) continue
    const change = (state & IN_OLD) === 0 ? 'added' : (state & IN_NEW) === 0 ? 'removed' : 'changed'
    found.push({ id, kind: row.kind as number, name: row.name as string, change })
  }
  // the table is in the order of names
  return found.sort((a, b) => a.kind - b.kind)
}

function filtered(
  differing: readonly NamedDeclaration[],
  { kinds, name, part, change }: DiffFilter,
): readonly NamedDeclaration[] {
  const numbers = kinds && new Set(kinds.map((kind) => DECLARATION_KINDS.indexOf(kind)))
  return differing.filter(
    (one) =>
      (numbers === undefined || numbers.has(one.kind)) &&
      (name === undefined || one.name === name) &&
      (part === undefined || one.name.includes(part)) &&
      (change === undefined || one.change === change),
  )
}

function countsOf(found: readonly NamedDeclaration[]): DiffAnswer['counts'] {
  const counts = new Map<number, DiffAnswer['counts'][number]>()
  for (const { kind, change } of found) {
    const of = counts.get(kind) ?? {
      kind: DECLARATION_KINDS[kind]!,
      ...{ added: 0, removed: 0, changed: 0 },
    }
    counts.set(kind, of)
    of[change]++
  }
  return [...counts.values()]
}

function entriesOf(
  declaration: StoredDeclaration,
  before: Uint8Array,
  after: Uint8Array,
): DiffEntry[] {
  const { kind, name, forms } = declaration
  const shapesIn = (has: Uint8Array) =>
    forms.filter(({ n }) => has[n] === 1).map((form) => shapeOf(declaration, form) as TypeShape)
  return diffShapes(shapesIn(before), shapesIn(after)).map(({ change, shape }): DiffEntry => {
    if (change !== 'changed') return { change, kind, name }
    const { size, declaration, members, values } = shape
    return {
      ...{ change, kind, name },
      ...(size && { size }),
      ...(declaration && { declaration }),
      ...(members && { members: mutable(members) }),
      ...(values && { values: mutable(values) }),
    }
  })
}

/** The same value with arrays that may be changed, as schemas have them. */
const mutable = <T>(value: T): Mutable<T> => value as Mutable<T>
type Mutable<T> = T extends readonly (infer E)[]
  ? Mutable<E>[]
  : T extends object
    ? { -readonly [K in keyof T]: Mutable<T[K]> }
    : T
