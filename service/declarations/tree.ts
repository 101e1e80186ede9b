/*
 * The tree of BTFs in an index. A BTF is told by the forms that it has and its parent lacks, and the reverse; the root has
 * no parent. Parents have lower numbers than their children, so one pass in the order of numbers passes parents first.
 */
import type { DatabaseSync } from 'node:sqlite'
import { flavourOf, type KernelName, seriesOf, sortableRelease } from '../../storage/index.ts'
import { type DeclarationRow, unpackNumbers } from './stored.ts'

/** By number: the number of the parent; -1 for the root, and for BTF that could not be taken up. */
export type Parents = Int32Array

/** By number of BTF: 1 if it has a form. */
export function holdersOf(
  { came, went }: Pick<DeclarationRow, 'came' | 'went'>,
  parents: Parents,
): Uint8Array {
  const has = new Uint8Array(parents.length)
  const [first = parents.length] = came
  const changes = new Map<number, 0 | 1>()
  for (const number of came) changes.set(number, 1)
  for (const number of went) changes.set(number, 0)
  for (let number = first; number < parents.length; number++) {
    const parent = parents[number]!
    has[number] = changes.get(number) ?? (parent < 0 ? 0 : has[parent]!)
  }
  return has
}

/** By number of form: 1 if a BTF has it. `forms` is the number of forms. Errors: those of `unpackNumbers`. */
export function formsOf(
  database: DatabaseSync,
  number: number,
  forms: number,
): Uint8Array<ArrayBuffer> {
  const select = database.prepare('SELECT parent, came, went FROM btfs WHERE number = ?')
  const chain: { came: Uint8Array | null; went: Uint8Array | null }[] = []
  for (let at: number | null = number; at !== null; ) {
    const row = select.get(at) as
      | { parent: number | null; came: Uint8Array | null; went: Uint8Array | null }
      | undefined
    // a parent comes before its children, so no damage makes this endless
    if (!row || (row.parent !== null && row.parent >= at))
      throw new TypeError('a BTF has no parent')
    chain.push(row)
    at = row.parent
  }
  const has = new Uint8Array(forms)
  for (const { came, went } of chain.reverse()) {
    if (came) for (const form of unpackNumbers(came)) has[form] = 1
    if (went) for (const form of unpackNumbers(went)) has[form] = 0
  }
  return has
}

/** The kernel of a BTF, as far as it tells how near another one is. */
export interface PlacedBtf {
  number: number
  kernel: KernelName
}

/**
 * Chooses the parent of a kernel's BTF: the neighbour before it in its series, or the one after it; else the most similar
 * of another series, by architecture, version of the kernel, distribution and flavour. Undefined if there is none.
 */
export function parentOf(kernel: KernelName, all: Iterable<PlacedBtf>): PlacedBtf | undefined {
  const [series, release] = [seriesOf(kernel), sortableRelease(kernel.release)]
  let best: { placed: PlacedBtf; rank: number; release: string } | undefined
  for (const placed of all) {
    const other = sortableRelease(placed.kernel.release)
    const before = other <= release
    const isSeries = seriesOf(placed.kernel) === series
    const rank = isSeries ? 100 + (before ? 1 : 0) : similarity(kernel, placed.kernel)
    const isNearer =
      best && rank === best.rank && (before ? other > best.release : other < best.release)
    if (!best || rank > best.rank || isNearer) best = { placed, rank, release: other }
  }
  return best?.placed
}

/** What two kernels of different series share. */
function similarity(a: KernelName, b: KernelName): number {
  return (
    (a.arch === b.arch ? 16 : 0) +
    (upstream(a.release) === upstream(b.release) ? 8 : 0) +
    (a.distro === b.distro ? 2 : 0) +
    (flavourOf(a.release) === flavourOf(b.release) ? 1 : 0)
  )
}

/** The first two numbers of a release. */
const upstream = (release: string): string => /^\d+\.\d+/.exec(release)?.[0] ?? ''
