/* Histories: which kernels of each series have which form of a declaration, or which place of a member, as runs. */
import type { MemberPlace } from '../../bpf/index.ts'
import type {
  DeclarationHistory,
  IndexedKernel,
  MemberHistory,
  MemberRun,
  MemberVariant,
} from './answers.ts'
import { changesOf, isRetyped, renamedTo } from './changes.ts'
import type { IndexedKernels } from './order.ts'
import { formIdOf, type StoredDeclaration, shapeOf } from './stored.ts'
import { holdersOf } from './tree.ts'

/** The forms of a declaration that some kernel has, as of one kernel: indexes in order. */
interface Held {
  declaration: StoredDeclaration
  /** the forms that a kernel of the index has; others are of BTF that no kernel has any more */
  forms: readonly {
    readonly stored: StoredDeclaration['forms'][number]
    readonly shape: ReturnType<typeof shapeOf>
    /** by number of BTF */
    readonly holders: Uint8Array
    readonly kernels: number
  }[]
}

/** The forms of a declaration, with their holders. */
export function heldForms(
  declaration: StoredDeclaration,
  { parents, series }: IndexedKernels,
): Held {
  const forms = declaration.forms.flatMap((stored) => {
    const holders = holdersOf(stored, parents)
    let kernels = 0
    for (const { btfs } of series) for (const btf of btfs) kernels += holders[btf]!
    return kernels === 0 ? [] : [{ stored, shape: shapeOf(declaration, stored), holders, kernels }]
  })
  return { declaration, forms }
}

/** The indexes of the forms that a BTF has. */
export const formsIn = ({ forms }: Held, btf: number): number[] =>
  forms.flatMap(({ holders }, i) => (holders[btf] === 1 ? [i] : []))

/** The history of a declaration; undefined if no kernel has it. */
export function historyOf(
  declaration: StoredDeclaration,
  all: IndexedKernels,
): DeclarationHistory | undefined {
  const held = heldForms(declaration, all)
  if (held.forms.length === 0) return undefined
  const { kind, name } = declaration
  return {
    ...{ kind, name },
    forms: held.forms.map(({ stored, shape, kernels }) => ({
      ...{ form: formIdOf(declaration, stored), kernels },
      ...(shape.size !== undefined && { size: shape.size }),
      ...(shape.declaration !== undefined && { declaration: shape.declaration }),
      ...(shape.members && { members: shape.members.length }),
      ...(shape.values && { values: shape.values.length }),
    })),
    series: all.series.map((series) => ({
      ...series.name,
      kernels: series.kernels.length,
      runs: runsOf(series.kernels, series.btfs, (btf) => formsIn(held, btf)).map(
        ({ states: forms, ...run }, i, runs) => {
          const old = held.forms[runs[i - 1]?.states[0] ?? -1]
          const now = held.forms[forms[0] ?? -1]
          return {
            ...run,
            forms,
            ...(old && now && { changes: changesOf(plain(old.shape), plain(now.shape)) }),
          }
        },
      ),
    })),
  }
}

/** A shape without absent parts. */
export function plain({ size, declaration, members, values }: ReturnType<typeof shapeOf>) {
  return {
    ...(size !== undefined && { size }),
    ...(declaration !== undefined && { declaration }),
    ...(members && { members: [...members] }),
    ...(values && { values: [...values] }),
  }
}

interface Stretch<T> {
  first: IndexedKernel
  last: IndexedKernel
  kernels: number
  states: T
}

/** Stretches of neighbours whose numbers are equal. */
function runsOf(
  kernels: readonly IndexedKernel[],
  btfs: readonly number[],
  statesIn: (btf: number) => number[],
): Stretch<number[]>[] {
  const runs: Stretch<number[]>[] = []
  for (const [i, kernel] of kernels.entries()) {
    const states = statesIn(btfs[i]!)
    const run = runs.at(-1)
    if (
      run &&
      run.states.length === states.length &&
      run.states.every((one, n) => one === states[n])
    ) {
      run.last = kernel
      run.kernels++
    } else runs.push({ first: kernel, last: kernel, kernels: 1, states })
  }
  return runs
}

/** The history of a member or enumerator; undefined if the declaration has none of this name in any kernel. */
export function memberHistoryOf(
  declaration: StoredDeclaration,
  member: string,
  all: IndexedKernels,
): MemberHistory | undefined {
  const held = heldForms(declaration, all)
  const places: MemberVariant[] = []
  const texts = new Map<string, number>()
  /** by form: the places of the member in it */
  const placesIn = held.forms.map(({ shape }) => {
    const found: Omit<MemberVariant, 'kernels'>[] = [
      ...(shape.members ?? [])
        .filter(({ name }) => name === member)
        .map(({ name: _, ...place }) => place),
      ...(shape.values ?? []).filter(({ name }) => name === member).map(({ value }) => ({ value })),
    ]
    return found.map((place) => {
      const text = JSON.stringify(place)
      const known = texts.get(text)
      if (known !== undefined) return known
      texts.set(text, places.length)
      return places.push({ ...place, kernels: 0 }) - 1
    })
  })
  if (places.length === 0) return undefined
  const ABSENT = -1
  const statesIn = (btf: number): number[] => {
    const forms = formsIn(held, btf)
    if (forms.length === 0) return [ABSENT]
    return [...new Set(forms.flatMap((form) => placesIn[form]!))].sort((a, b) => a - b)
  }
  const series = all.series.map(({ name, kernels, btfs }) => {
    const numbers = new Map(kernels.map((kernel, i) => [kernel, btfs[i]!]))
    for (const btf of btfs)
      for (const place of statesIn(btf)) if (place >= 0) places[place]!.kernels++
    const membersOf = (kernel: IndexedKernel): readonly MemberPlace[] =>
      held.forms[formsIn(held, numbers.get(kernel)!)[0] ?? -1]?.shape.members ?? []
    const runs = runsOf(kernels, btfs, statesIn)
    return {
      ...name,
      kernels: kernels.length,
      runs: runs.map(({ states, ...run }, i): MemberRun => {
        const forms = states.filter((state) => state !== ABSENT)
        const state =
          states[0] === ABSENT ? 'no_type' : forms.length === 0 ? 'no_member' : 'present'
        const before = runs[i - 1]
        if (!before) return { ...run, state, forms, changes: [] }
        const [was, is] = [places[before.states[0] ?? -1], places[forms[0] ?? -1]]
        const [old, now] = [membersOf(before.last), membersOf(run.first)]
        const to = was && !is ? renamedTo(member, old, now) : undefined
        const from = !was && is ? renamedTo(member, now, old) : undefined
        return {
          ...{ ...run, state, forms },
          changes: memberChanges(was, is, (to ?? from) !== undefined),
          ...(to !== undefined && { renamedTo: to }),
          ...(from !== undefined && { renamedFrom: from }),
        }
      }),
    }
  })
  const { kind, name } = declaration
  return { kind, name, member, forms: places, series }
}

function memberChanges(
  was: MemberVariant | undefined,
  is: MemberVariant | undefined,
  renamed: boolean,
): MemberRun['changes'] {
  if (!was || !is)
    return [
      ...(is ? ['came' as const] : was ? ['went' as const] : []),
      ...(renamed ? ['renamed' as const] : []),
    ]
  return [
    ...(was.offset !== is.offset ? ['moved' as const] : []),
    ...(was.size !== is.size ? ['resized' as const] : []),
    ...(isRetyped(was, is) ? ['retyped' as const] : []),
    ...(was.value !== is.value ? ['renumbered' as const] : []),
  ]
}

/** What `pageOfRuns` and `joinHistories` need of a history. */
interface PagedHistory {
  readonly kind: string
  readonly name: string
  readonly forms: readonly object[]
  readonly series: readonly {
    readonly distro: string
    readonly version: string
    readonly arch: string
    readonly flavour: string
    readonly runs: readonly { readonly forms: readonly number[] }[]
  }[]
}

/**
 * A page of histories: the runs of all series of all histories in order, without the first `skip`, and at most `limit`. It
 * has the series of these runs and the forms that they have. `more` tells whether there are runs behind it.
 */
export function pageOfRuns<H extends PagedHistory>(
  histories: readonly H[],
  { skip, limit }: { skip: number; limit: number },
): { part: H[]; more: boolean } {
  let at = 0
  const part = histories.flatMap((history) => {
    const series = history.series.flatMap((one) => {
      const runs = one.runs.slice(Math.max(skip - at, 0), Math.max(skip + limit - at, 0))
      at += one.runs.length
      return runs.length === 0 ? [] : { ...one, runs }
    })
    return series.length === 0 ? [] : withFormsOf({ ...history, series })
  })
  return { part, more: at > skip + limit }
}

/** A history with only the forms that its runs have. */
function withFormsOf<H extends PagedHistory>(history: H): H {
  const used = new Set(history.series.flatMap(({ runs }) => runs.flatMap(({ forms }) => forms)))
  const kept = [...used].sort((a, b) => a - b)
  const places = new Map(kept.map((form, i) => [form, i]))
  return {
    ...history,
    forms: kept.map((form) => history.forms[form]!),
    series: history.series.map((one) => ({
      ...one,
      runs: one.runs.map((run) => ({ ...run, forms: run.forms.map((form) => places.get(form)!) })),
    })),
  }
}

/** The histories of which pages are parts, in the order of the pages. */
export function joinHistories<H extends PagedHistory>(pages: readonly (readonly H[])[]): H[] {
  const joined: { history: H; forms: object[]; series: H['series'][number][] }[] = []
  for (const part of pages.flat()) {
    const last = joined.at(-1)
    const isSame = last?.history.kind === part.kind && last.history.name === part.name
    const own = isSame ? last : { history: part, forms: [], series: [] }
    if (!isSame) joined.push(own)
    const places = part.forms.map((form) => {
      const text = JSON.stringify(form)
      const known = own.forms.findIndex((one) => JSON.stringify(one) === text)
      return known < 0 ? own.forms.push(form) - 1 : known
    })
    for (const series of part.series) {
      const runs = series.runs.map((run) => ({ ...run, forms: run.forms.map((i) => places[i]!) }))
      const before = own.series.at(-1)
      if (before && isSameSeries(before, series))
        own.series[own.series.length - 1] = { ...before, runs: [...before.runs, ...runs] }
      else own.series.push({ ...series, runs })
    }
  }
  return joined.map(({ history, forms, series }) => ({ ...history, forms, series }))
}

type SeriesOfHistory = PagedHistory['series'][number]

const isSameSeries = (a: SeriesOfHistory, b: SeriesOfHistory): boolean =>
  a.distro === b.distro && a.version === b.version && a.arch === b.arch && a.flavour === b.flavour
