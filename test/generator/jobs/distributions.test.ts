// Every row of the table from its repository to the catalog, with little images; test/long has it with a real kernel.
import { join } from 'node:path'
import t from 'tap'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { ROWS, tryDistributions } from '../../helpers/distributions.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeMill } from '../../helpers/run-directory.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

t.test('no row with debug info is left out', async (t) => {
  const rows = [...SOURCES.values()].filter(({ versions }) =>
    Object.values<{ images?: boolean }[]>(versions).some((all) => !all.every((one) => one.images)),
  )
  t.same(ROWS.map(({ source }) => source).sort(), rows.map(({ id }) => id).sort())
})

await tryDistributions(t, {
  arch: (packaged) => packaged,
  make: (path, release, machine) => makeVmlinux(path, { release, machine }),
})

t.test('custom: a file, by what its name tells', async (t) => {
  const mill = await makeMill(t)
  const [image, release] = [join(mill.directory, 'vmlinux'), '5.3.18-57.3-default']
  makeVmlinux(image, { release, machine: 'x86_64' })
  const files = { [`usr/lib/debug/boot/vmlinux-${release}.debug`]: image }
  const name = { name: 'kernel-default-debuginfo', version: '5.3.18', release: '57.3.1' }
  t.match(await mill.run([makeRpm(mill.directory, { ...name, files })]), { published: 1 })
  t.match(await mill.records(), [
    {
      kernel: { distro: 'custom', version: 'rolling', arch: 'x86_64', release },
      package: { version: '5.3.18-57.3.1', authenticated: 'none' },
    },
  ])
})
