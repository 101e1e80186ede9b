// Each source of the table, from its repository to the catalog, with small images; test/long has real kernels.
import { join } from 'node:path'
import t from 'tap'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { ROWS, tryDistributions } from '../../helpers/distributions.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

/** clang's names of machines. */
const MACHINES = {
  x86_64: 'x86_64',
  aarch64: 'aarch64',
  armv5tel: 'arm',
  ppc64le: 'powerpc64le',
} as const

t.test('every source with debug info is tested', async (t) => {
  const withDebug = [...SOURCES.values()].filter(({ packages }) => packages.length > 0)
  const rows = withDebug.filter(({ versions }) =>
    Object.values<{ images?: boolean }[]>(versions).some((all) => !all.every((one) => one.images)),
  )
  t.same(new Set(ROWS.map(({ source }) => source)), new Set(rows.map(({ id }) => id)))
})

await tryDistributions(t, {
  arch: (packaged) => packaged,
  make: (path, release, packaged) => makeVmlinux(path, { release, machine: MACHINES[packaged] }),
})

t.test(
  "a file that a user gives becomes a kernel of the distribution custom, named by the file's name",
  async (t) => {
    const env = await makeRunDirectory(t)
    const [image, release] = [join(env.directory, 'vmlinux'), '5.3.18-57.3-default']
    makeVmlinux(image, { release, machine: 'x86_64' })
    const files = { [`usr/lib/debug/boot/vmlinux-${release}.debug`]: image }
    const name = { name: 'kernel-default-debuginfo', version: '5.3.18', release: '57.3.1' }
    t.match(await env.run([makeRpm(env.directory, { ...name, files })]), { published: 1 })
    t.match(await env.records(), [
      {
        kernel: { distro: 'custom', version: 'rolling', arch: 'x86_64', release },
        package: { version: '5.3.18-57.3.1', authenticated: 'none' },
      },
    ])
  },
)
