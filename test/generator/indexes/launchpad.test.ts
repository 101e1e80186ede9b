import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readLaunchpad } from '../../../generator/indexes/launchpad.ts'
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
  const read = (rest: Partial<typeof series> = {}) =>
    readLaunchpad({ ...series, ...rest }, (name) => /-dbgsym$/.test(name), {
      cache,
      retry: IMPATIENT,
    })
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
    binaries.map(({ name, version, file }) => ({
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
      ['5', '6'],
      'a binary in two pockets is returned once',
    )
  },
)

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
