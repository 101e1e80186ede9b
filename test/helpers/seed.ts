import { randomInt } from 'node:crypto'
import type { Test } from 'tap'

/** A random seed, or that of `BTFMILL_TEST_SEED`. It is printed, so that a failure can be reproduced. */
export function seedOf(t: Test): number {
  const seed = Number(process.env.BTFMILL_TEST_SEED ?? randomInt(2 ** 31))
  t.comment(`BTFMILL_TEST_SEED=${seed}`)
  return seed
}
