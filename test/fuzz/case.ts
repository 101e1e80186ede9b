/* One case: a seed, the input that it makes, and the outcome of every entry point. */
import { corpus, type InputSort } from './corpus.ts'
import { type Visit, visitAll } from './door.ts'
import { mutate } from './mutation.ts'
import { Random } from './random.ts'

export interface Case {
  /** name of the mutated fixture */
  readonly name: string
  readonly sort: InputSort
  readonly bytes: Uint8Array
  /** for the choices while the entry points run */
  readonly random: Random
}

/** The sorts of input by weight, which does not depend on the number of fixtures. */
const SORTS: readonly InputSort[] = [
  'btf',
  'btf',
  'btf',
  'object',
  'object',
  'object',
  'vmlinux',
  'split btf',
]

/** Makes the case of a seed; equal seeds make equal cases. */
export function caseOf(seed: number): Case {
  const random = new Random(seed)
  const sort = random.pick(SORTS)
  const input = random.pick(corpus.filter((one) => one.sort === sort))
  return { name: input.name, sort, bytes: mutate(random, input, corpus), random }
}

/** Runs a case through the entry points for its sort. Errors: `Defect`. */
export function run({ sort, bytes, random }: Case): Visit[] {
  return visitAll(sort, bytes, random)
}
