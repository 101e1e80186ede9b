// Identical BTF is stored once: two Debian kernels of one upstream version, whose changes do not touch any type.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { generate } from '../../generator/index.ts'
import { findDebianPackages } from '../../generator/prove/package.ts'
import { Catalog, getBlob, openStore, verifyStore } from '../../storage/index.ts'
import { run } from '../helpers/command.ts'

const KERNEL = { distro: 'debian', version: '12', arch: 'x86_64' }
const NAME = /^linux-image-(6\.1\.0-\d+-cloud-amd64)-dbg$/

/** Finds the newest two releases with the same upstream version, such as 6.1.192 in 6.1.192-2. */
async function findTwins(): Promise<[string, string] | undefined> {
  const found = await findDebianPackages(KERNEL, (name) => NAME.test(name))
  const upstream = (version: string) => version.slice(0, version.lastIndexOf('-'))
  const releases = new Map<string, string>()
  for (const { name, version } of found) {
    const [release, twin] = [NAME.exec(name)![1]!, releases.get(upstream(version))]
    if (twin && twin !== release) return [twin, release]
    releases.set(upstream(version), release)
  }
  return undefined
}

const twins = await findTwins()
const there = twins ? {} : { skip: 'Debian has no two kernels of one upstream version now' }

t.test('two kernels with identical BTF share one blob', there, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'share-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const url = `file:${join(directory, 'store')}`
  const store = await openStore(url)
  for (const release of twins!) {
    const filter = { ...KERNEL, release }
    const cache = join(directory, 'indexes')
    const summary = await generate({
      store,
      filter,
      limit: 1,
      from: 'debug',
      earlyStop: true,
      cache,
    })
    t.match(summary, { published: 1, failed: {} }, release)
  }

  const records = [...(await Catalog.open(store)).list()].map(({ record }) => record)
  t.same(records.map(({ kernel }) => kernel.release).sort(), twins!.toSorted())
  t.not(records[0]!.kernel.buildId, records[1]!.kernel.buildId, 'the kernels are different builds')
  const { sha256, size } = records[0]!.btf!
  t.match(records[1]!.btf, { sha256, size }, 'with identical BTF')
  const blobs = await Array.fromAsync(store.list('blobs/'))
  t.equal(blobs.length, 1, 'the BTF is stored once')
  t.equal((await getBlob(store, sha256)).length, size)
  t.same(await Array.fromAsync(verifyStore(store)), [], 'clean')

  const { stdout } = await run('list', '--store', url)
  const rows = stdout.trimEnd().split('\n')
  t.equal(rows.filter((row) => /, shared by 2$/.test(row)).length, 2, 'list shows it')
})
