/*
 * From packages to what agents get, over the life of a store: a package is not downloaded twice, another pahole makes
 * new BTF while the old is served, and builds that share a `uname -r` are kept apart.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import t, { type Test } from 'tap'
import { getBlob } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'
import { ask, startTestService } from '../../helpers/test-service.ts'
import { makeVmlinux, RELEASE } from '../../helpers/vmlinux.ts'

const PATH = `/v1/btf/debian/12/i686/${RELEASE}`
const signer = makeSigner(t)

/** Makes the installed pahole report another version, which decides which options it gets. */
function pretend(t: Test, version: string): void {
  const directory = join(t.testdirName, version)
  const pahole = execFileSync('which', ['pahole'], { encoding: 'utf8' }).trim()
  mkdirSync(directory, { recursive: true })
  const script = `#!/bin/sh\n[ "$1" = --version ] && exec echo v${version}\nexec ${pahole} "$@"\n`
  writeFileSync(join(directory, 'pahole'), script)
  chmodSync(join(directory, 'pahole'), 0o755)
  const before = process.env.PATH
  process.env.PATH = `${directory}${delimiter}${before}`
  t.teardown(() => {
    process.env.PATH = before
  })
}

/** A server with a package for each build, a store, and a service that serves it. */
async function open(t: Test, builds: readonly number[]) {
  t.testdir()
  const env = await makeRunDirectory(t)
  const { directory, store } = env
  const image = join(directory, 'vmlinux')
  const packages = builds.map((build) => {
    const version = `6.1.9-${build}`
    const buildId = String(build).repeat(40)
    makeVmlinux(image, {
      buildId,
      defines: { STACK: 256 + build, VERSION: `"${version}"` },
    })
    return makePackage(directory, image, { version })
  })
  const repository = makeRepository(directory, { packages, signer })
  const server = await startServer(t, (request, response) => {
    response.end(readFileSync(join(directory, decodeURIComponent(request.url!))))
  })
  const service = await startTestService(t, undefined, { store })
  return {
    ...env,
    run: () => env.run({ ...repository, url: `${server.url}/debian` }),
    downloads: () => server.requests.filter(({ url }) => url?.endsWith('.deb')).length,
    get: async (query = '') => {
      await service.catalog.refresh()
      return await ask(`${service.url}${PATH}${query}`)
    },
  }
}

t.test('another pahole makes the BTF again, once', async (t) => {
  const { run, records, downloads, get } = await open(t, [1])
  t.match(await run(), { published: 1 })
  t.match(await run(), { published: 0, skipped: 1 })
  t.equal(downloads(), 1, 'the package is not downloaded again')
  const [old] = await records()
  const before = await get()
  t.equal(before.status, 200)

  pretend(t, '1.23')
  t.match(await run(), { published: 1, skipped: 0 })
  t.match(await run(), { published: 0, skipped: 1 })
  t.equal(downloads(), 2)
  const [made, ...others] = await records()
  t.same(others, [], 'the record replaces the old one')
  t.equal(made?.tool.version, '1.23')
  t.not(made?.tool.fingerprint, old?.tool.fingerprint)
  t.equal(made?.createdAt, old?.createdAt)
  const after = await get()
  t.equal(after.status, 200)
  t.equal(after.headers.etag, `"${made?.btf?.sha256}"`)
})

t.test(
  'while a newer pahole fails, the old BTF is served, and another pahole is tried',
  async (t) => {
    const { run, records, downloads, get, store, verify } = await open(t, [1])
    await run()
    const [old] = await records()
    const before = await get()

    pretend(t, '1.25') // it gets options that the installed version does not know
    t.match(await run(), { published: 0, failed: { pahole_failed: 1 } })
    const [kept] = await records()
    t.match(kept, {
      btf: old!.btf!,
      tool: old!.tool,
      failure: { code: 'pahole_failed', attempts: 1, retryAt: null, fingerprint: /pahole 1\.25/ },
    })
    const after = await get()
    t.equal(after.status, 200)
    t.same(after.bytes, before.bytes)
    t.same(after.bytes, await getBlob(store, old!.btf!.sha256))
    await verify()

    t.match(
      await run(),
      { published: 0, failed: {}, postponed: 1 },
      'the same pahole is not tried again',
    )
    t.equal(downloads(), 2)
    pretend(t, '1.23')
    t.match(await run(), { published: 1 }, 'another one is')
    t.match(await records(), [{ tool: { version: '1.23' }, failure: undefined }])
  },
)

t.test(
  'builds that share a uname -r are served by build-id or uname -v, and are ambiguous without',
  async (t) => {
    const { run, records, downloads, get } = await open(t, [1, 2])
    t.match(await run(), { published: 2 })
    t.match(await run(), { published: 0, skipped: 2 })
    t.equal(downloads(), 2)
    const made = new Map((await records()).map((record) => [record.package.version, record]))
    t.equal(made.size, 2)
    const shas = [...made.values()].map(({ btf }) => btf!.sha256)
    t.equal(new Set(shas).size, 2, 'the builds have different BTF')

    const which = await get()
    t.equal(which.status, 409, 'wrong BTF is worse than none')
    t.match(which.json, { code: 'ambiguous' })
    for (const build of [1, 2]) {
      const { btf, kernel } = made.get(`6.1.9-${build}`)!
      const by = async (query: string) => (await get(query)).headers.etag
      t.equal(await by(`?build=${String(build).repeat(40)}`), `"${btf!.sha256}"`)
      const unameVersion = `#1 SMP Debian 6.1.9-${build} (2023-02-01)`
      t.equal(kernel.unameVersion, unameVersion)
      t.equal(await by(`?uname-version=${encodeURIComponent(unameVersion)}`), `"${btf!.sha256}"`)
    }
  },
)
