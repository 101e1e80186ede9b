// Generation on demand, from a repository behind a server that counts requests.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  type OnDemandGeneration,
  OnDemandGenerator,
  type OnDemandOptions,
} from '../../../generator/index.ts'
import { parseSource } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { Catalog, verifyStore } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { startLaunchpad } from '../../helpers/launchpad-server.ts'
import { makePackage } from '../../helpers/package.ts'
import { IMPATIENT, makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'
import { makeVmlinux, RELEASE } from '../../helpers/vmlinux.ts'

const signer = makeSigner(t)
const KERNEL = { distro: 'debian', version: '12', arch: 'i686', release: RELEASE }

/** A generator with one source, which has these packages. */
async function open(
  t: Test,
  packages: (directory: string) => string[],
  options: Partial<OnDemandOptions> = {},
) {
  const surroundings = await makeRunDirectory(t)
  const { directory, store, scratch } = surroundings
  const repository = makeRepository(directory, { packages: packages(directory), signer })
  const server = await startServer(t, (request, response) => {
    response.end(readFileSync(join(directory, decodeURIComponent(request.url!))))
  })
  const generator = await OnDemandGenerator.open({
    store,
    scratch,
    cache: join(directory, 'cache'),
    retry: IMPATIENT,
    sources: [repository.source],
    mirror: `${server.url}/debian`,
    ...options,
  })
  t.teardown(() => generator.close())
  const asked = (what: RegExp) => server.requests.filter(({ url }) => what.test(url!)).length
  return { ...surroundings, generator, asked }
}

/** A package of a kernel; different builds have different BTF. */
function packageOf(directory: string, release = RELEASE, build = 1): string {
  const image = join(directory, 'vmlinux')
  makeVmlinux(image, { release, defines: { STACK: 256 + build } })
  return makePackage(directory, image, { release, version: `6.1.9-${build}` })
}

t.test('a kernel that many clients request under any of its names is generated once', async (t) => {
  const { generator, asked, store } = await open(t, (directory) => [packageOf(directory)])
  const names = [
    KERNEL,
    { ...KERNEL, version: '12.9' },
    { ...KERNEL, arch: 'i386' },
    { ...KERNEL, distro: '"debian"' },
  ]
  const submitted = Array.from(
    { length: 200 },
    (_, i) => generator.submit(names[i % names.length]!)!,
  )
  t.equal(new Set(submitted.map(({ id }) => id)).size, 1)
  t.match(submitted[0], { kernel: KERNEL, state: 'searching', packages: [] })
  t.equal(generator.underWay, 1)

  const { id } = submitted[0]!
  const seen: OnDemandGeneration[] = []
  for await (const generation of generator.watch(id)) seen.push(generation)
  t.equal(seen[0]?.state, 'searching')
  const [made] = seen.at(-1)!.packages
  t.match(seen.at(-1), { state: 'published', failure: undefined })
  t.match(made, { version: '6.1.9-1', state: 'published', read: made!.size, stage: 'publish' })
  t.equal(asked(/\.deb$/), 1)
  t.equal(generator.underWay, 0)
  t.same(generator.get(id), seen.at(-1))

  const catalog = await Catalog.openSnapshot(store)
  t.match(catalog.find(KERNEL), [{ btf: {} }], 'the published catalog has it')

  t.match(
    await generator.done(generator.submit(KERNEL)!.id),
    { state: 'published' },
    'a second request',
  )
  t.equal(asked(/\.deb$/), 1, 'needs no download')
})

t.test(
  'a package that has no BTF is followed by the next one in the same generation',
  async (t) => {
    const { generator, asked, records } = await open(t, (directory) => [
      packageOf(directory),
      makePackage(directory, undefined, { name: `linux-headers-${RELEASE}` }),
      makePackage(directory, undefined, { name: `linux-image-${RELEASE}` }),
    ])
    const seen = new Set<string>()
    let last: OnDemandGeneration | undefined
    for await (const generation of generator.watch(generator.submit(KERNEL)!.id)) {
      last = generation
      for (const { name } of generation.packages) seen.add(name)
    }
    t.match(last, { state: 'published', packages: [{ name: `linux-image-${RELEASE}-dbg` }] })
    const names = [
      `linux-headers-${RELEASE}`,
      `linux-image-${RELEASE}`,
      `linux-image-${RELEASE}-dbg`,
    ]
    t.same([...seen], names, 'clients see which package is read')
    t.equal(asked(/\.deb$/), 3)
    t.match(await records(), [{ origin: 'pahole', package: { name: names[2] } }])
  },
)

t.test('lost BTF is made again on request', async (t) => {
  const { generator, asked, store } = await open(t, (directory) => [packageOf(directory)])
  await generator.done(generator.submit(KERNEL)!.id)
  for await (const { key } of store.list('blobs/')) await store.delete(key)
  await Array.fromAsync(verifyStore(store, { repair: true }))
  t.match(await generator.done(generator.submit(KERNEL)!.id), { state: 'published' })
  t.equal(asked(/\.deb$/), 2)
  t.same(await Array.fromAsync(verifyStore(store)), [])
})

t.test('all builds of a kernel are generated', async (t) => {
  const { generator, records } = await open(t, (directory) => [
    packageOf(directory, RELEASE, 1),
    packageOf(directory, RELEASE, 2),
    packageOf(directory, '6.1.0-8-test', 3),
  ])
  t.match(await generator.done(generator.submit(KERNEL)!.id), {
    state: 'published',
    packages: [{}, {}],
  })
  const made = await records()
  t.same(
    made.map(({ package: { version } }) => version),
    ['6.1.9-1', '6.1.9-2'],
  )
  t.not(made[0]?.btf?.sha256, made[1]?.btf?.sha256)
})

t.test(
  'a kernel that no source has is unknown, and further requests use the cached index',
  async (t) => {
    const { generator, asked } = await open(t, (directory) => [packageOf(directory)])
    for (const release of ['6.1.0-1-other', '*', '6.1.0-9-*', '../../etc'])
      t.match(
        await generator.done(generator.submit({ ...KERNEL, release })!.id),
        { state: 'unknown' },
        release,
      )
    t.match(await generator.done(generator.submit({ ...KERNEL, distro: 'plan9' })!.id), {
      state: 'unknown',
    })
    t.equal(asked(/InRelease$/), 1)
    t.throws(() => generator.submit({ ...KERNEL, release: '' }), { code: 'invalid_key' })
    t.throws(() => generator.submit({ ...KERNEL, arch: 'a'.repeat(300) }), { code: 'invalid_key' })
    t.equal(generator.get('0'.repeat(32)), undefined)
    t.equal(await generator.done('0'.repeat(32)), undefined)
  },
)

t.test(
  "a kernel that has left Ubuntu's archive is asked for by its name on Launchpad",
  async (t) => {
    const { directory } = await makeRunDirectory(t)
    const release = '5.4.0-42-generic'
    const image = join(directory, 'vmlinux')
    makeVmlinux(image, { release, machine: 'x86_64' })
    const name = `linux-image-unsigned-${release}-dbgsym`
    const files = { [`usr/lib/debug/boot/vmlinux-${release}`]: image }
    const of = { name, version: '5.4.0-42.46', release, architecture: 'amd64', files }
    const file = makePackage(directory, undefined, of)
    const others = Array.from({ length: 20 }, (_, i) => ({
      name: name.replace('42', `${i}`),
      version: `5.4.0-${i}.1`,
      file,
    }))
    const launchpad = await startLaunchpad(t, [...others, { name, version: of.version, file }])
    const archive = makeRepository(directory, { packages: [], signer }).source
    const rows = [
      {
        ...archive,
        distro: 'ubuntu',
        versions: { '20.04': [{ url: 'debian', suite: 'bookworm' }] },
        architectures: { x86_64: 'i386' },
      },
      { ...SOURCES.get('ubuntu-launchpad')!, mirror: `${launchpad.url}/devel`, minSize: 0 },
    ]
    const { generator, records } = await open(t, () => [], { sources: rows.map(parseSource) })
    const kernel = { distro: 'ubuntu', version: '20.04', arch: 'amd64', release }
    const { id } = generator.submit(kernel)!
    t.match(await generator.done(id), { state: 'published' })
    t.match(await records(), [{ kernel: { ...kernel, arch: 'x86_64' }, package: { name } }])
    t.equal(launchpad.requests.length, 3, 'the name, its file, and the package itself')

    const unknown = generator.submit({ ...kernel, release: '5.4.0-99-generic' })!
    t.match(await generator.done(unknown.id), { state: 'unknown' })
    const strange = generator.submit({ ...kernel, release: '5.4.0-42-generic*' })!
    t.match(await generator.done(strange.id), { state: 'unknown' })
    t.equal(launchpad.requests.length, 5, 'its two possible names')
  },
)

t.test(
  'a failed kernel is cached, and afterwards not retried before its record says so',
  async (t) => {
    const packages = (directory: string) => [makePackage(directory, undefined)]
    for (const cacheTtl of [60_000, -1]) {
      const { generator, asked } = await open(t, packages, { cacheTtl })
      const failed = { state: 'failed', failure: { code: 'no_vmlinux', retryAt: null } }
      t.match(await generator.done(generator.submit(KERNEL)!.id), failed)
      t.match(await generator.done(generator.submit(KERNEL)!.id), failed, 'the recorded failure')
      t.equal(asked(/\.deb$/), 1)
    }
  },
)

t.test('a kernel fails if its source cannot be read', async (t) => {
  const { generator } = await open(t, (directory) => [packageOf(directory)], {
    mirror: 'http://127.0.0.1:1/debian',
  })
  const { id } = generator.submit(KERNEL)!
  t.match(await generator.done(id), { state: 'failed', failure: { code: 'unreachable' } })
})

t.test('a request over the limit is rejected, unless its kernel is under way', async (t) => {
  const { generator } = await open(t, (directory) => [packageOf(directory)], { limit: 2 })
  const [first, second] = ['6.1.0-1-a', RELEASE].map((release) =>
    generator.submit({ ...KERNEL, release }),
  )
  t.ok(first && second)
  t.equal(generator.submit({ ...KERNEL, release: '6.1.0-3-c' }), undefined)
  t.same(generator.submit(KERNEL)?.id, second?.id, 'a generation that is under way can be joined')
  await generator.done(first!.id)
  t.ok(generator.submit({ ...KERNEL, release: '6.1.0-3-c' }))
})

t.test('closing the generator aborts its jobs without a trace', async (t) => {
  const { generator, records, leftovers } = await open(t, (directory) => [packageOf(directory)])
  const { id } = generator.submit(KERNEL)!
  for await (const { packages } of generator.watch(id)) if (packages[0]?.stage === 'unpack') break
  await generator.close()
  t.match(generator.get(id), { state: 'failed', failure: { code: 'aborted' } })
  t.same(await records(), [])
  t.same(await leftovers(), [])
})

t.test('a watcher that leaves does not end the generation', async (t) => {
  const { generator } = await open(t, (directory) => [packageOf(directory)])
  const { id } = generator.submit(KERNEL)!
  const leave = new AbortController()
  const seen: string[] = []
  for await (const { state } of generator.watch(id, leave.signal)) {
    seen.push(state)
    leave.abort()
  }
  t.same(seen, ['searching'])
  t.match(await generator.done(id), { state: 'published' })
})
