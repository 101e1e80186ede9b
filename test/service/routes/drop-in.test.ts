// Drop-in routes: the paths that clients of other services request, with real clients.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { minimizeBtf, openObject, parseBtf } from '../../../bpf/index.ts'
import { isReserved } from '../../../service/routes/btfhub.ts'
import {
  Catalog,
  openStore,
  publishArchive,
  putRecord,
  type Store,
  sha256Of,
} from '../../../storage/index.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const run = promisify(execFile)
const KERNEL = readFileSync(littleKernels().get('x86_64')!)
const [AA, BB] = ['aa'.repeat(20), 'bb'.repeat(20)]
const failure = {
  code: 'no_dwarf',
  message: 'vmlinux has no DWARF',
  attempts: 1,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
} as const

async function fill(store: Store) {
  const [little, big] = [await btfOf(store, RAW.little), await btfOf(store, RAW.big)]
  const debian = recordOf({ release: '6.12.107+deb13-amd64', version: '13', buildId: AA })
  const twin = (version: string) => ({ ...debian.package, version })
  return [
    { ...debian, btf: little },
    recordOf(
      { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: '5.4.0-1' },
      { btf: big },
    ),
    recordOf({ arch: 's390x', release: 'mainframe' }, { btf: big }),
    recordOf({ release: 'core' }, { btf: await btfOf(store, KERNEL) }),
    recordOf({ release: 'twins' }, { btf: little, package: twin('1') }),
    recordOf({ release: 'twins', buildId: BB }, { btf: big, package: twin('2') }),
    recordOf({ release: 'embedded' }, { embedded: true }),
    recordOf({ release: 'failed' }, { failure }),
  ]
}

const testService = await startTestService(t, fill)
const home = mkdtempSync(join(tmpdir(), 'drop-in-'))
t.teardown(() => rmSync(home, { recursive: true }))

/** The only file in an archive, unpacked by the system's tar. */
async function fileIn(
  archive: Buffer,
): Promise<{ name: string; content: Buffer; listing: string }> {
  const path = join(home, 'archive')
  writeFileSync(path, archive)
  const { stdout: listing } = await run('tar', ['tvf', path, '--full-time'])
  const name = (await run('tar', ['tf', path])).stdout.trimEnd()
  const { stdout } = await run('tar', ['xOf', path, name], { encoding: 'buffer', maxBuffer: 1e9 })
  return { name, content: stdout, listing }
}

t.test('wget --spider finds an archive of btfhub-archive, and wget downloads it', async (t) => {
  const kernels = {
    'debian/13/x86_64/6.12.107+deb13-amd64': RAW.little,
    'debian/13/x86_64/6.12.107%2Bdeb13-amd64': RAW.little,
    'ubuntu/20.04/arm64/5.4.0-1': RAW.big,
    'ubuntu/20.04/aarch64/5.4.0-1': RAW.big,
  }
  for (const [path, raw] of Object.entries(kernels)) {
    const url = `${testService.url}/${path}.btf.tar.xz`
    const target = join(home, 'taken')
    const spider = await run('wget', ['--spider', url])
    await run('wget', ['--quiet', '--output-document', target, url])
    const taken = readFileSync(target)
    t.match(spider.stderr, `Length: ${taken.length} `, path)
    const { name, content, listing } = await fileIn(taken)
    const release = decodeURIComponent(path.split('/').at(-1)!)
    t.equal(name, `${release}.btf`)
    t.ok(content.equals(raw), path)
    t.match(listing, /^-r--r--r-- root\/root +\d+ 1970-01-01 00:00:00 /)
  }
  const none = run('wget', ['--spider', `${testService.url}/debian/12/x86_64/none.btf.tar.xz`])
  await t.rejects(none, { code: 8 })
})

t.test('an archive has an ETag, 304, ranges, and the same bytes on every route', async (t) => {
  const name = 'debian/13/x86_64/6.12.107+deb13-amd64.btf.tar.xz'
  const { bytes, headers } = await ask(`${testService.url}/${name}`)
  t.equal(headers.etag, `"${sha256Of(bytes)}"`)
  t.equal(headers['content-encoding'], undefined)
  t.match(headers['cache-control'], /max-age=60/)
  t.equal((await ask(`${testService.url}/${name}`, { 'if-none-match': headers.etag! })).status, 304)
  const part = await ask(`${testService.url}/${name}`, { range: 'bytes=0-5' })
  t.equal(part.status, 206)
  t.same(part.bytes, Buffer.from('fd377a585a00', 'hex'), "xz's magic")
  const beyond = await ask(`${testService.url}/${name}`, { range: 'bytes=99999999-' })
  t.match(beyond.json, { code: 'invalid_range' })
  const query = new URLSearchParams({
    distribution: 'debian',
    distribution_version: '13',
    kernel_version: '6.12.107+deb13-amd64',
    arch: 'x86_64',
  })
  for (const door of [`btfs/${name}`, `newest/${name}`, `api/v1/download?${query}`])
    t.ok((await ask(`${testService.url}/${door}`)).bytes.equals(bytes), door)
})

t.test("a path that starts like another route's is never a kernel in the tree", async (t) => {
  const firsts =
    'v1 v2 api btfs buildid coolbpf docs healthz home metrics newest openapi.json readyz'
  const misses = async () => (await ask(`${testService.url}/v1/misses`)).bytes.toString()
  const before = await misses()
  for (const first of [...firsts.split(' '), '%761'])
    for (const path of [
      '/v1/btf/debian/12',
      `/${first}/kernel/debian/12`,
      `/${first}/kernel/debian/12?unknown=1`,
      `/${first}/kernel/x86_64/6.1.0.btf.tar.xz`,
      `/newest/${first}/kernel/x86_64/6.1.0.btf.tar.xz`,
    ]) {
      const { status, headers, json } = await ask(`${testService.url}${path}`)
      t.equal(status, 404, path)
      t.equal(headers['x-content-type-options'], 'nosniff', 'the guards of routes hold')
      t.match(json, { code: 'not_found', detail: /^no route for GET / }, path)
    }
  t.equal(await misses(), before, 'no miss is counted')
})

t.test('the first segments of all routes are reserved', async (t) => {
  const { json } = await ask(`${testService.url}/openapi.json`)
  const firsts = new Set(Object.keys(json!.paths as object).map((path) => path.split('/')[1]!))
  firsts.delete('{distro}')
  t.ok(firsts.size > 7, [...firsts].join(' '))
  for (const first of firsts) t.ok(isReserved(first), first)
})

t.test('a kernel without BTF gets the reason on every drop-in route', async (t) => {
  const states = {
    none: [404, 'unknown_kernel'],
    embedded: [404, 'has_own_btf'],
    failed: [404, 'generation_failed'],
    twins: [409, 'ambiguous'],
    '%2e%2e': [400, 'invalid_name'],
    'a%2fb': [400, 'invalid_name'],
  } as const
  const doors = [
    (release: string) => `debian/12/x86_64/${release}.btf.tar.xz`,
    (release: string) => `btfs/debian/12/x86_64/${release}.btf.tar.xz`,
    (release: string) => `coolbpf/btf/x86_64/vmlinux-${release}`,
    (release: string) =>
      `api/v1/download?distribution=debian&distribution_version=12&arch=x86_64&kernel_version=${release}`,
  ]
  for (const door of doors)
    for (const [release, [status, code]] of Object.entries(states)) {
      if (release === '%2e%2e' && door('').endsWith('.xz')) continue // `...btf.tar.xz` is a name
      const answer = await ask(`${testService.url}/${door(release)}`)
      t.equal(answer.status, status, door(release))
      t.match(answer.json, { code }, door(release))
    }
  for (const path of ['debian/12/x86_64/core.btf', 'debian/12/x86_64/.btf.tar.xz', 'a/b/c/d'])
    t.match((await ask(`${testService.url}/${path}`)).json, { code: 'not_found' }, path)
  t.match((await ask(`${testService.url}/coolbpf/btf/x86_64/core`)).json, { code: 'not_found' })
})

t.test('routes below /newest choose the newest of several builds', async (t) => {
  const archives = [
    'newest/debian/12/x86_64/twins.btf.tar.xz',
    'debian/12/x86_64/twins.btf.tar.xz?ambiguous=newest',
    'newest/btfs/debian/12/x86_64/twins.btf.tar.xz',
    'newest/api/v1/download?distribution=debian&distribution_version=12&arch=x86_64&kernel_version=twins',
  ]
  for (const path of archives)
    t.ok(
      (await fileIn((await ask(`${testService.url}/${path}`)).bytes)).content.equals(RAW.big),
      path,
    )
  const raw = await ask(`${testService.url}/newest/coolbpf/btf/x86_64/vmlinux-twins`)
  t.ok(raw.bytes.equals(RAW.big))
  const chosen = await ask(`${testService.url}/debian/12/x86_64/twins.btf.tar.xz?build=${BB}`)
  t.ok((await fileIn(chosen.bytes)).content.equals(RAW.big))
})

t.test('OpenAnolis routes give raw BTF by uname -r alone, to curl --compressed', async (t) => {
  const paths = {
    'x86_64/vmlinux-6.12.107+deb13-amd64': RAW.little,
    'aarch64/vmlinux-5.4.0-1': RAW.big,
  }
  for (const [path, raw] of Object.entries(paths)) {
    const url = `${testService.url}/coolbpf/btf/${path}`
    const options = { encoding: 'buffer', maxBuffer: 1e9 } as const
    const { stdout } = await run('curl', ['--silent', '--fail', '--compressed', url], options)
    t.ok(stdout.equals(raw), path)
  }
  await t.rejects(
    run('curl', ['--silent', '--fail', `${testService.url}/coolbpf/btf/s390x/vmlinux-5.4.0-1`]),
    { code: 22 },
  )
})

t.test('debuginfod-find downloads the section .BTF by build-id', async (t) => {
  const cache = join(home, 'debuginfod')
  const find = (...args: string[]) =>
    run('debuginfod-find', args, {
      env: { ...process.env, DEBUGINFOD_URLS: testService.url, DEBUGINFOD_CACHE_PATH: cache },
    })
  const finds = (...args: string[]) =>
    find(...args).then(
      () => 'found',
      ({ stderr }) => stderr as string,
    )
  const { stdout } = await find('section', AA, '.BTF')
  t.ok(readFileSync(stdout.trimEnd()).equals(RAW.little))
  t.match(await finds('section', 'dd'.repeat(20), '.BTF'), /No such file/)
  t.match(await finds('section', AA, '.debug_info'), /No such file/)
  t.match(await finds('debuginfo', AA), /No such file/)

  const { headers } = await ask(`${testService.url}/buildid/${AA}/section/.BTF`)
  t.equal(headers['x-debuginfod-size'], String(RAW.little.length))
  t.match(headers['cache-control'], /public/)
  t.equal(headers['content-type'], 'application/octet-stream')
  t.equal((await ask(`${testService.url}/buildid/..%2f/section/.BTF`)).status, 400)
})

t.test('every kernel in the list of btfhub-online can be downloaded', async (t) => {
  const { bytes, headers } = await ask(`${testService.url}/api/v1/list`)
  const list = JSON.parse(bytes.toString()) as Record<string, string>[]
  t.match(headers['content-type'], /^application\/json/)
  t.same(
    list.map((one) => Object.values(one).join(' ')),
    [
      'debian 12 mainframe s390x',
      'debian 12 core x86_64',
      'debian 13 6.12.107+deb13-amd64 x86_64',
      'ubuntu 20.04 5.4.0-1 arm64',
    ],
    'but what is ambiguous',
  )
  for (const identifier of list)
    t.equal(
      (await ask(`${testService.url}/api/v1/download?${new URLSearchParams(identifier)}`)).status,
      200,
    )
  const newest = JSON.parse((await ask(`${testService.url}/newest/api/v1/list`)).bytes.toString())
  t.equal(newest.length, list.length + 1)
  t.match((await ask(`${testService.url}/api/v1/download?arch=x86_64`)).json, {
    code: 'invalid_request',
  })
})

t.test('customize of btfhub-online gives the BTF that an object needs', async (t) => {
  const url = `${testService.url}/api/v1/customize?distribution=debian&distribution_version=12&arch=x86_64&kernel_version=`
  const object = coreObjects('el').get('task')!
  const target = join(home, 'custom')
  await run('curl', ['--silent', '--fail', `${url}core`, '-F', `bpf=@${object}`, '-o', target])
  const { name, content } = await fileIn(readFileSync(target))
  t.equal(name, 'core.btf')
  const least = minimizeBtf(parseBtf(KERNEL), [openObject(readFileSync(object))])
  t.ok(content.equals(least))

  const post = async (release: string, field: string, file: Buffer) => {
    const body = new FormData()
    body.append(field, new Blob([new Uint8Array(file)]), 'x')
    const answer = await fetch(`${url}${release}`, { method: 'POST', body })
    return { status: answer.status, json: await answer.json() }
  }
  const sound = readFileSync(object)
  const refused = {
    'no ELF': [await post('core', 'bpf', Buffer.from('x')), 422, 'invalid_object'],
    'half of one': [await post('core', 'bpf', sound.subarray(0, 500)), 422, 'invalid_object'],
    'another field': [await post('core', 'object', sound), 400, 'invalid_request'],
    'no kernel': [await post('none', 'bpf', sound), 404, 'unknown_kernel'],
  } as const
  for (const [what, [answer, status, code]] of Object.entries(refused))
    t.match(answer, { status, json: { code } }, what)
  const large = join(home, 'large')
  writeFileSync(large, Buffer.alloc(33 * 1024 * 1024))
  const { stdout } = await run('curl', ['--silent', `${url}core`, '-F', `bpf=@${large}`])
  t.match(JSON.parse(stdout), { status: 413, code: 'too_large' }, 'which curl sees')
  const plain = await request(`${url}core`, {
    method: 'POST',
    body: 'x',
    headers: { 'content-type': 'text/plain' },
  })
  t.equal(plain.statusCode, 415)
  t.match(await plain.body.json(), { code: 'unsupported_media_type' })
})

/** The digests in a catalogue, by kernel. */
async function catalogueOf(url: string) {
  const { json, headers } = await ask(`${url}/btfs/catalog.json`)
  return { catalogue: json as object, missing: Number(headers['btfmill-missing']) }
}

const shaOf = (catalogue: object, ...names: string[]): string =>
  names.reduce(
    (level, name) => (level as Record<string, object>)[name]!,
    catalogue,
  ) as unknown as string

async function agrees(t: Test, url: string, catalogue: object) {
  const kernels = [
    ['x86_64', 'debian', '13', '6.12.107+deb13-amd64'],
    ['arm64', 'ubuntu', '20.04', '5.4.0-1'],
    ['x86_64', 'debian', '12', 'core'],
  ] as const
  for (const [arch, distro, version, release] of kernels) {
    const { bytes } = await ask(`${url}/btfs/${distro}/${version}/${arch}/${release}.btf.tar.xz`)
    t.equal(shaOf(catalogue, arch, distro, version, release, 'sha256'), sha256Of(bytes), release)
  }
  t.same(Object.keys(catalogue), ['x86_64', 'arm64'])
  t.same(Object.keys(shaOf(catalogue, 'x86_64', 'debian', '12')), ['core'], 'but what is ambiguous')
}

t.test("digests in Datadog's catalogue are computed once and survive a restart", async (t) => {
  const state = join(t.testdir({}), 'state')
  const first = await startTestService(t, fill, { settings: { state } })
  const start = await catalogueOf(first.url)
  t.equal(start.missing, 3)
  const { catalogue } = await until(
    () => catalogueOf(first.url),
    ({ missing }) => missing === 0,
  )
  await agrees(t, first.url, catalogue)

  const again = await startTestService(t, () => [], { store: first.store, settings: { state } })
  const known = await catalogueOf(again.url)
  t.same(known, { catalogue, missing: 0 })
  await agrees(t, again.url, known.catalogue)
})

t.test(
  "the service sends the archives that the store has, with the catalogue's digests",
  async (t) => {
    const store = await openStore('memory:')
    for (const record of await fill(store)) await putRecord(store, record)
    await publishArchive(store, await Catalog.publish(store))
    const key = 'archive/debian/13/x86_64/6.12.107+deb13-amd64.btf.tar.xz'
    const kept = await buffer((await store.get(key)).body)
    const { url } = await startTestService(t, () => [], { store })
    const { catalogue, missing } = await catalogueOf(url)
    t.equal(missing, 0)
    await agrees(t, url, catalogue)
    t.ok((await ask(`${url}/${key.slice('archive/'.length)}`)).bytes.equals(kept))
    t.match((await ask(`${url}/metrics`)).bytes.toString(), /kind="packed"\} 0\n/)

    // a damaged archive is not sent
    const damaged = await startTestService(t, () => [], { store })
    await store.put(key, Buffer.from('damaged'))
    const { bytes } = await ask(`${damaged.url}/${key.slice('archive/'.length)}`)
    t.ok((await fileIn(bytes)).content.equals(RAW.little))
  },
)

t.test('concurrent requests for one archive pack it once', async (t) => {
  const { url } = await startTestService(t, fill)
  const path = `${url}/debian/13/x86_64/6.12.107+deb13-amd64.btf.tar.xz`
  const all = await Promise.all(Array.from({ length: 100 }, () => ask(path)))
  t.ok(all.every(({ status }) => status === 200))
  t.match((await ask(`${url}/metrics`)).bytes.toString(), /kind="packed"\} 1\n/)
})
