import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readSnapshot } from '../../../generator/indexes/snapshot.ts'
import {
  type SnapshotFile,
  type SnapshotOptions,
  startSnapshot,
} from '../../helpers/launchpad-server.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'

const directory = mkdtempSync(join(tmpdir(), 'snapshot-'))
t.teardown(() => rmSync(directory, { recursive: true }))

function file(version: string, name: string, binary = version, arch = 'amd64'): SnapshotFile {
  const path = join(directory, `${name}_${binary}_${arch}.deb`)
  writeFileSync(path, `${name} ${version} ${arch}`)
  return { version, path }
}

const NAME = 'linux-image-4.19.0-5-amd64-dbg'
const FILES = [
  file('4.19.37-3', NAME),
  file('4.19.37-5', NAME),
  file('4.19.37-5', NAME, '4.19.37-5', 'i386'),
  file('4.19.37-5', 'linux-image-4.19.0-5-amd64'),
  file('4.19.37-5', 'linux-image-amd64-dbg'),
  file('5.10.1-1', 'linux-image-5.10.0-1-amd64-dbg'),
]

async function snapshot(t: Test, options: SnapshotOptions = {}) {
  const server = await startSnapshot(t, FILES, options)
  const cache = mkdtempSync(join(directory, 'cache-'))
  const packages = { base: server.url, package: 'linux', matching: '4[.]19[.].*' }
  const wanted = (name: string) => /^linux-image-\d.*-dbg$/.test(name)
  const read = (architecture = 'amd64', responses = new Map<string, Promise<Buffer>>()) =>
    readSnapshot({ ...packages, architecture }, wanted, { cache, responses, retry: IMPATIENT })
  return { server, read }
}

t.test(
  'of the versions that are not among the newest wanted ones, no files are listed',
  async (t) => {
    const more = Array.from({ length: 6 }, (_, i) => file(`4.19.${30 + i}-1`, NAME))
    const server = await startSnapshot(t, [...more, ...FILES], {})
    const packages = { base: server.url, package: 'linux', matching: '4[.]19[.].*' }
    const cache = mkdtempSync(join(directory, 'cache-'))
    const read = await readSnapshot(
      { ...packages, architecture: 'amd64', newest: 1 },
      (name) => name === NAME,
      { cache, retry: IMPATIENT },
    )
    t.equal(read[0]?.version, '4.19.37-5')
    const listed = server.requests.filter(({ url }) => /allfiles/.test(url!))
    t.ok(listed.length <= 3, `${listed.length} requests of 8`)
  },
)

t.test('readSnapshot returns the wanted packages of all matching versions', async (t) => {
  const { server, read } = await snapshot(t)
  const pool = `${server.url}/archive/debian/20190513T205533Z/pool/main/l/linux`
  t.same(
    (await read()).toReversed(),
    FILES.slice(0, 2).map(({ version, path }) => ({
      name: NAME,
      version,
      url: `${pool}/${NAME}_${version}_amd64.deb`,
      size: readFileSync(path).length,
      sha1: createHash('sha1').update(readFileSync(path)).digest('hex'),
    })),
  )
  t.same(
    server.requests.map(({ url }) => url),
    ['', '4.19.37-5/allfiles?fileinfo=1', '4.19.37-3/allfiles?fileinfo=1'].map(
      (path) => `/mr/package/linux/${path}`,
    ),
  )
})

t.test('of one exact kernel, only its packages are asked for', async (t) => {
  const server = await startSnapshot(t, FILES)
  const cache = mkdtempSync(join(directory, 'cache-'))
  const read = (names: string[][], more = {}) =>
    readSnapshot(
      {
        base: server.url,
        package: 'linux',
        matching: '4[.]19[.].*',
        ...more,
        names,
        architecture: 'amd64',
      },
      () => true,
      { cache, retry: IMPATIENT },
    )
  const found = await read([
    ['linux-image-4.19.0-5-amd64-dbgsym', NAME, 'linux-image-4.19.0-5-amd64'],
  ])
  t.same(
    found.map(({ name, version }) => `${name} ${version}`),
    [`${NAME} 4.19.37-5`, `${NAME} 4.19.37-3`],
    'the best name that is there, the newest build first',
  )
  t.same(
    server.requests.map(({ url }) => url),
    [
      'linux-image-4.19.0-5-amd64-dbgsym/',
      `${NAME}/`,
      `${NAME}/4.19.37-5/binfiles?fileinfo=1`,
      `${NAME}/4.19.37-3/binfiles?fileinfo=1`,
    ].map((path) => `/mr/binary/${path}`),
  )
  t.same(await read([['linux-image-5.10.0-1-amd64-dbg']]), [], 'another series')
  t.same(await read([[NAME]], { package: 'linux-5.10' }), [], 'another source package')
  t.equal((await read([[NAME]], { newest: 1 })).length, 1)
})

t.test('another architecture in the same run makes no further request', async (t) => {
  const { server, read } = await snapshot(t)
  const responses = new Map<string, Promise<Buffer>>()
  await read('amd64', responses)
  const before = server.requests.length
  t.match(await read('i386', responses), [{ version: '4.19.37-5', url: /_i386\.deb$/ }])
  t.same(await read('s390x', responses), [])
  t.equal(server.requests.length, before)
})

t.test(
  'a response with a path outside the archive, or not the expected JSON, is rejected',
  async (t) => {
    for (const [what, from, to] of [
      ['a path outside', '/pool/main', '/../../../etc'],
      ['a relative path', '"/pool', '"pool'],
      ['an archive that is a path', '"archive_name":"debian"', '"archive_name":"../x"'],
      ['no time', '20190513T205533Z', '../..'],
      ['a negative size', /"size":\d+/g, '"size":-1'],
      ['no digest', /"[0-9a-f]{40}":\[/g, '"zz":['],
      ['no files', '"fileinfo"', '"info"'],
      ['no versions', '"version"', '"v"'],
      ['HTML', /^.+$/gs, '<html></html>'],
      ['an empty body', /^.+$/gs, ''],
    ] as const) {
      const { read } = await snapshot(t, { edit: (answer) => answer.replaceAll(from, to) })
      await t.rejects(read(), { code: 'invalid_index' }, what)
    }
  },
)
