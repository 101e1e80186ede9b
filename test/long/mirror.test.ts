// A hundred kills of each side of a mirror, of a service with blobs and of one with packs.
import t from 'tap'
import { surviveKills } from '../helpers/killed-mirrors.ts'

t.test('a mirror and its service survive a hundred kills each, at every kind of step', (t) =>
  surviveKills(t, 100, { everywhere: true }),
)
