/* One case: a seed, the input that it makes, and what came of it at every door. */
import { corpus, type InputSort } from './corpus.ts'
import { type Visit, visitAll } from './door.ts'
import { mutate } from './mutation.ts'
import { Random } from './random.ts'

export interface Case {
  /** of the fixture that was mutated */
  readonly name: string
  readonly sort: InputSort
  readonly bytes: Uint8Array
  /** for what is chosen on the way through the doors */
  readonly random: Random
}

/** How often there are inputs of a sort, not how many fixtures there are of it. */
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

/** The case of a seed; equal seeds make equal cases. */
export function caseOf(seed: number): Case {
  const random = new Random(seed)
  const sort = random.pick(SORTS)
  const input = random.pick(corpus.filter((one) => one.sort === sort))
  return { name: input.name, sort, bytes: mutate(random, input, corpus), random }
}

/** Takes a case through its doors. Errors: a Defect. */
export function run({ sort, bytes, random }: Case): Visit[] {
  return visitAll(sort, bytes, random)
}
