// A hundred kills of either side of a mirror, of a service with blobs and of one with packs.
import t from 'tap'
import { surviveKills } from '../helpers/killed-mirrors.ts'

t.test('a mirror and its service survive a hundred kills', (t) => surviveKills(t, 100))
