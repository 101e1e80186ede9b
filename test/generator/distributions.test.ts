// Every row of the table from its repository to the catalog, with little images; test/long has it with a real kernel.
import t from 'tap'
import { SOURCES } from '../../generator/sources.ts'
import { ROWS, tryDistributions } from './distributions.ts'
import { makeVmlinux } from './vmlinux.ts'

t.test('no row is left out', async (t) => {
  const rows = [...SOURCES.keys()].filter((id) => id !== 'custom')
  t.same(ROWS.map(({ source }) => source).sort(), rows.sort())
})

await tryDistributions(t, {
  arch: (packaged) => packaged,
  make: (path, release, machine) => makeVmlinux(path, { release, machine }),
})
