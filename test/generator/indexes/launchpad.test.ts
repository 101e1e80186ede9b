import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type LaunchpadQuery, readLaunchpad } from '../../../generator/indexes/launchpad.ts'
import { namesOfRelease, namingOf } from '../../../generator/sources/naming.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import {
  type Binary,
  type LaunchpadOptions,
  startLaunchpad,
} from '../../helpers/launchpad-server.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'

const directory = mkdtempSync(join(tmpdir(), 'launchpad-'))
t.teardown(() => rmSync(directory, { recursive: true }))

const NAME = 'linux-image-unsigned-5.4.0-42-generic-dbgsym'

/** Makes a binary and its file. */
function binary(name: string, version: string, rest: Partial<Binary> = {}): Binary {
  const file = join(directory, `${name}_${version}_amd64.ddeb`)
  writeFileSync(file, `${name} ${version}`)
  return { name, version, file, ...rest }
}

/** Serves binaries, and returns the server and a function that reads them. */
async function launchpad(t: Test, binaries: readonly Binary[], options: LaunchpadOptions = {}) {
  const server = await startLaunchpad(t, binaries, options)
  const cache = mkdtempSync(join(directory, 'cache-'))
  const series = {
    api: `${server.url}/devel`,
    series: 'focal',
    architecture: 'amd64',
    hosts: [] as string[],
  }
  const naming = namingOf(SOURCES.get('ubuntu-launchpad')!.packages)
  const read = (rest: Partial<typeof series> = {}, query: Partial<LaunchpadQuery> = {}) =>
    readLaunchpad(
      { ...series, ...rest },
      { naming: (name) => naming({ name }), ...query },
      { cache, retry: IMPATIENT },
    )
  return { server, read }
}

t.test('readLaunchpad reads all pages, and the file of each wanted binary once', async (t) => {
  const versions = ['5.4.0-40.44', '5.4.0-41.45', '5.4.0-42.46', '5.4.0-43.47', '5.4.0-44.48']
  const binaries = versions.map((version) => binary(NAME, version))
  const { server, read } = await launchpad(t, [
    ...binaries,
    binary('linux-image-generic', '5.4'),
    binary('linux-headers-generic-dbgsym', '5.4'),
  ])
  const found = await read()
  t.same(
    found,
    binaries.toReversed().map(({ name, version, file }) => ({
      name,
      version,
      url: `${server.url}/files/${name}_${version}_amd64.ddeb`,
      size: readFileSync(file!).length,
      sha256: createHash('sha256').update(readFileSync(file!)).digest('hex'),
    })),
  )
  const [first] = server.requests
  const query = new URL(first!.url!, server.url).searchParams
  t.match(Object.fromEntries(query), {
    'ws.op': 'getPublishedBinaries',
    binary_name: 'linux-image-',
    distro_arch_series: `${server.url}/devel/ubuntu/focal/amd64`,
    'ws.size': '300',
  })
  t.equal(
    server.requests.length,
    3 + versions.length,
    'three pages, and one request per wanted binary',
  )
  const before = server.requests.length
  t.same(await read(), found)
  t.equal(server.requests.length - before, 3, 'files never change, so they are not requested again')
  t.same(await read({ architecture: 's390x' }), [])
})

t.test(
  'proposed, withdrawn and hidden binaries, and those without files, are left out',
  async (t) => {
    const { read } = await launchpad(t, [
      binary(NAME, '1', { pocket: 'Proposed' }),
      binary(NAME, '2', { status: 'Deleted', superseded: null }),
      binary(NAME, '3', { build: 'tag:launchpad.net:2008:redacted' }),
      { name: NAME, version: '4' },
      binary(NAME, '5', { status: 'Deleted' }),
      binary(NAME, '5', { pocket: 'Security', build: null }),
      binary(NAME, '6', { status: 'Published', superseded: null }),
    ])
    t.same(
      (await read()).map(({ version }) => version),
      ['6', '5'],
      'a binary in two pockets is returned once',
    )
  },
)

t.test('one exact kernel takes a request for its name and one for its file', async (t) => {
  const signed = 'linux-image-5.4.0-42-generic-dbgsym'
  const other = 'linux-image-5.4.0-1009-raspi-dbgsym'
  const others = ['40.44', '41.45', '43.47'].map((version) =>
    binary(NAME.replace('42', version.slice(0, 2)), `5.4.0-${version}`),
  )
  const { server, read } = await launchpad(t, [
    ...others,
    binary(NAME, '5.4.0-42.46'),
    binary(signed, '5.4.0-42.46'),
    binary(other, '5.4.0-1009.9'),
  ])
  const { packages } = SOURCES.get('ubuntu-launchpad')!
  const ask = async (release: string) => {
    server.requests.splice(0)
    const found = await read({}, { names: [namesOfRelease(packages, release)!] })
    return { found: found.map(({ name }) => name), requests: server.requests.length }
  }
  t.same(await ask('5.4.0-42-generic'), { found: [NAME], requests: 2 })
  t.match(server.requests[0]?.url, /binary_name=linux-image-unsigned-5[.]4[.]0-42-generic-dbgsym&/)
  t.match(server.requests[0]?.url, /&exact_match=true&/)
  t.same(await ask('5.4.0-1009-raspi'), { found: [other], requests: 3 }, 'no unsigned image')
  t.same(await ask('5.4.0-99-generic'), { found: [], requests: 2 }, 'no such kernel')
  t.same(await ask('no-kernel&ws.op=x'), { found: [], requests: 0 }, 'not the name of a kernel')
})

t.test('the details of packages that a limit leaves out are not asked for', async (t) => {
  const versions = ['5.4.0-40.44', '5.4.0-44.48', '5.4.0-41.45', '5.4.0-43.47', '5.4.0-42.46']
  const named = (version: string) => NAME.replace('42', version.slice(6, 8))
  const binaries = versions.map((version) => binary(named(version), version))
  const shims = versions.map((version) => binary(named(version).replace('unsigned-', ''), version))
  const { server, read } = await launchpad(t, [...shims, ...binaries], { page: 100 })
  const found = await read({}, { limit: 2 })
  t.same(
    found.map(({ name, version }) => [name, version]),
    ['5.4.0-44.48', '5.4.0-43.47'].map((version) => [named(version), version]),
  )
  t.equal(server.requests.length, 3, 'one page, and two files')
  const minSize = readFileSync(binaries[3]!.file!).length
  for (const { file } of [binaries[1]!, shims[1]!]) writeFileSync(file!, '')
  const { read: again } = await launchpad(t, [...shims, ...binaries])
  const large = await again({}, { limit: 1, minSize })
  t.match(large, [{ version: '5.4.0-43.47' }], 'too small packages do not count')
  t.equal(large.length, 1)
})

t.test('pages that repeat or have no end are rejected', async (t) => {
  const binaries = [binary(NAME, '1'), binary(NAME, '2'), binary(NAME, '3')]
  const loops = await launchpad(t, binaries, {
    edit: (answer, url) => {
      const value = JSON.parse(answer)
      return Array.isArray(value)
        ? answer
        : JSON.stringify({ ...value, next_collection_link: url.href })
    },
  })
  await t.rejects(loops.read(), { code: 'invalid_index', message: /repeat, or are more than/ })
  t.equal(loops.server.requests.length, 1)

  const counts = await launchpad(t, [], {
    edit: (_, { href }) => JSON.stringify({ entries: [], next_collection_link: `${href}0` }),
  })
  await t.rejects(counts.read(), { code: 'invalid_index', message: /repeat, or are more than/ })
  t.equal(counts.server.requests.length, 2000)
})

t.test('a link to another host is rejected, unless the source names the host', async (t) => {
  const binaries = [binary(NAME, '1'), binary(NAME, '2'), binary(NAME, '3')]
  const edits: Record<string, (answer: string) => string> = {
    'the next page': (answer) =>
      answer.replace(/("next_collection_link":")[^/]+\/\/[^/]+/, '$1http://evil.example'),
    'a binary': (answer) =>
      answer.replaceAll(/("self_link":")[^/]+\/\/[^/]+/g, '$1http://evil.example'),
    'a file': (answer) => answer.replaceAll(/("url":")[^/]+\/\/[^/]+/g, '$1http://evil.example'),
    'a local file': (answer) => answer.replaceAll(/("url":")[^"]+/g, '$1file:///etc/passwd.deb'),
  }
  for (const [what, edit] of Object.entries(edits)) {
    const { read } = await launchpad(t, binaries, { edit })
    await t.rejects(read(), { code: 'invalid_index', message: /outside its repository/ }, what)
  }
  const { read } = await launchpad(t, binaries, { edit: edits['a file']! })
  t.match(
    await read({ hosts: ['evil.example'] }),
    [{ url: /^http:\/\/evil\.example\// }],
    'a host that the source names',
  )
})

t.test('a response that is not the expected JSON is rejected', async (t) => {
  const binaries = [binary(NAME, '1')]
  for (const [what, text] of [
    ['HTML', '<!DOCTYPE html><title>Timeout</title>'],
    ['an empty body', ''],
    ['an entry without fields', '{"entries": [{}]}'],
    ['no entries', '{}'],
    ['null', 'null'],
    ['a number', '{"entries": 1}'],
  ] as const) {
    const { read } = await launchpad(t, binaries, { edit: () => text })
    await t.rejects(read(), { code: 'invalid_index' }, what)
  }
  for (const [what, from, to] of [
    ['no size', '"size"', '"length"'],
    ['a negative size', /"size":\d+/, '"size":-1'],
    ['no digest', /"sha256":"[0-9a-f]+"/, '"sha256":"zz"'],
  ] as const) {
    const { read } = await launchpad(t, binaries, { edit: (answer) => answer.replace(from, to) })
    await t.rejects(read(), { code: 'invalid_index' }, what)
  }
  const { url } = await startServer(t, (_, response) => void response.writeHead(503).end())
  const { read } = await launchpad(t, binaries)
  await t.rejects(read({ api: url }), { code: 'unreachable' })
})
