// Some kills of either side of a mirror; test/long/mirror.test.ts has a hundred of each.
import t from 'tap'
import { surviveKills } from '../../helpers/killed-mirrors.ts'

t.test('a mirror or its service is killed at work, and the next run completes it', (t) =>
  surviveKills(t, 2, { kernels: 10 }),
)
