/* One case: a seed, the input that it makes, and the outcome of every entry point. */
import { ARCHIVE_SORTS, type ArchiveSort, mutatedArchive } from './archive.ts'
import { visitArchive } from './archive-door.ts'
import { corpus, type InputSort } from './corpus.ts'
import { type Visit, visitInput } from './door.ts'
import { mutate } from './mutation.ts'
import { mutatedPack, visitPack } from './pack.ts'
import { Random } from './random.ts'

type Sort = InputSort | ArchiveSort | 'pack'

export interface Case {
  /** name of the mutated fixture */
  readonly name: string
  readonly sort: Sort
  readonly bytes: Uint8Array
  /** for the choices while the entry points run */
  readonly random: Random
}

/** The sorts of input by weight, which does not depend on the number of fixtures. */
const SORTS: readonly Sort[] = [
  ...ARCHIVE_SORTS,
  'btf',
  'btf',
  'btf',
  'object',
  'object',
  'object',
  'vmlinux',
  'split btf',
  'delta',
  'delta',
  'pack',
]

/** Makes the case of a seed; equal seeds make equal cases. */
export function caseOf(seed: number): Case {
  const random = new Random(seed)
  const sort = random.pick(SORTS)
  if (isArchive(sort)) return { name: sort, sort, bytes: mutatedArchive(random, sort), random }
  if (sort === 'pack') return { name: sort, sort, bytes: mutatedPack(random), random }
  const input = random.pick(corpus.filter((one) => one.sort === sort))
  return { name: input.name, sort, bytes: mutate(random, input, corpus), random }
}

const isArchive = (sort: Sort): sort is ArchiveSort =>
  (ARCHIVE_SORTS as readonly string[]).includes(sort)

/** Runs a case through the entry points for its sort. Errors: `Defect`. */
export async function run({ name, sort, bytes, random }: Case): Promise<Visit[]> {
  if (sort === 'pack') return await visitPack(Buffer.from(bytes))
  return isArchive(sort)
    ? await visitArchive(sort, bytes, random)
    : visitInput(name, sort, bytes, random)
}
