/* What differs between two BTFs of an index, without opening them: the declarations of which only one has some form. */
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

export interface DiffPage {
  kinds?: readonly DeclarationKind[] | undefined
  /** only declarations of this name */
  name?: string | undefined
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

const [SAME, DIFFERS, IN_OLD, IN_NEW] = [0, 1, 2, 4]

/** Compares two BTFs by number. The page is one of declarations; one with several types of a name has several entries. */
export function diffOf(index: DiffedIndex, old: number, now: number, page: DiffPage): Diff {
  const { database, owners } = index
  const [before, after] = [old, now].map((number) => formsOf(database, number, owners.length))
  const states = new Uint8Array(owners.length) // there are no more declarations than forms
  for (let form = 0; form < owners.length; form++) {
    const owner = owners[form]!
    const was = before![form]
    const is = after![form]
    if (was === 1) states[owner]! |= IN_OLD
    if (is === 1) states[owner]! |= IN_NEW
    if (was !== is) states[owner]! |= DIFFERS
  }
  const differing = differingNames(database, states, page)
  const shown = differing.slice(page.skip, page.skip + page.limit)
  return {
    counts: countsOf(differing, states),
    entries: shown.flatMap(({ id }) => entriesOf(index.get(id), before!, after!)),
    more: differing.length > page.skip + page.limit,
  }
}

interface NamedDeclaration {
  id: number
  kind: number
  name: string
}

/** The declarations that differ, by kind, then by name. */
function differingNames(
  database: DatabaseSync,
  states: Uint8Array,
  { kinds, name }: DiffPage,
): NamedDeclaration[] {
  const numbers = (kinds ?? DECLARATION_KINDS).map((kind) => DECLARATION_KINDS.indexOf(kind))
  const where = `kind IN (${numbers.join()})${name === undefined ? '' : ' AND name = ?'}`
  const select = database.prepare(`SELECT id, kind, name FROM declarations WHERE ${where}`)
  const found: NamedDeclaration[] = []
  for (const row of select.iterate(...(name === undefined ? [] : [name]))) {
    const id = row.id as number
    if (((states[id] ?? SAME) & DIFFERS) !== 0)
      found.push({ id, kind: row.kind as number, name: row.name as string })
  }
  // the table is in the order of names
  return found.sort((a, b) => a.kind - b.kind)
}

function countsOf(
  differing: readonly NamedDeclaration[],
  states: Uint8Array,
): DiffAnswer['counts'] {
  const counts = new Map<number, DiffAnswer['counts'][number]>()
  for (const { id, kind } of differing) {
    const of = counts.get(kind) ?? {
      kind: DECLARATION_KINDS[kind]!,
      added: 0,
      removed: 0,
      changed: 0,
    }
    counts.set(kind, of)
    const state = states[id]!
    if ((state & IN_OLD) === 0) of.added++
    else if ((state & IN_NEW) === 0) of.removed++
    else of.changed++
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
