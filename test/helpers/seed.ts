import { randomInt } from 'node:crypto'
import type { Test } from 'tap'

/** A seed by lot, or that of the environment; told, so that what it leads to can be had again. */
export function seedOf(t: Test): number {
  const seed = Number(process.env.BTFMILL_TEST_SEED ?? randomInt(2 ** 31))
  t.comment(`BTFMILL_TEST_SEED=${seed}`)
  return seed
}
