/*
 * Sources that cannot be read. Each gives a failure with a code, which is reported and stored, leaves no files, and
 * does not affect other sources. The failure is removed once the source can be read again.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { GenerateEvent } from '../../../generator/index.ts'
import { parseSource, type Source } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import type { FailureCode } from '../../../storage/index.ts'
import { makeSuite } from '../../helpers/apt-archive.ts'
import { serveDirectory } from '../../helpers/file-server.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRpmRepository, signRepomd } from '../../helpers/rpm-repository.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { type Server, startServer } from '../../helpers/test-server.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

const signer = makeSigner(t)

type Answer = RequestListener

/** Serves the input directory, and answers the paths in `odd` in another way. */
async function serve(
  t: Test,
  runDirectory: RunDirectory,
  odd: [RegExp, Answer][] = [],
): Promise<Server> {
  return await startServer(t, (request, response) => {
    const path = decodeURIComponent(request.url!.replace(/[?].*/, ''))
    const answer = odd.find(([pattern]) => pattern.test(path))?.[1]
    if (answer) return answer(request, response)
    try {
      response.end(readFileSync(join(runDirectory.directory, path)))
    } catch {
      response.writeHead(404).end()
    }
  })
}

/** Makes an apt suite and an rpm-md repository in the input directory, each with one kernel. */
function fill(runDirectory: RunDirectory): void {
  const image = join(runDirectory.directory, 'vmlinux')
  makeVmlinux(image, { release: '5.4.0-42-generic', machine: 'x86_64' })
  const name = 'linux-image-unsigned-5.4.0-42-generic-dbgsym'
  const files = { 'usr/lib/debug/boot/vmlinux-5.4.0-42-generic': image }
  const options = { name, version: '5.4.0-42.46', architecture: 'amd64', files }
  const main = [makePackage(runDirectory.directory, undefined, options)]
  const suite = { suite: 'focal', architecture: 'amd64', components: { main }, signer }
  makeSuite(join(runDirectory.directory, 'ubuntu'), suite)

  const release = '5.14.0-1.el9.x86_64'
  makeVmlinux(image, { release, machine: 'x86_64' })
  const path = `usr/lib/debug/lib/modules/${release}/vmlinux`
  const rpm = makeRpm(runDirectory.directory, { files: { [path]: image } })
  makeRpmRepository(join(runDirectory.directory, 'alma'), { packages: [rpm], form: 'xml' })
  signRepomd(join(runDirectory.directory, 'alma'), signer)
}

const amd64 = { x86_64: 'amd64' }
const x86_64 = { x86_64: 'x86_64' }

const ubuntuAt = (url: string, rest: object = {}): Source =>
  parseSource({
    ...SOURCES.get('ubuntu'),
    mirror: `${url}/ubuntu`,
    architectures: amd64,
    keyrings: [signer.keyring],
    components: ['main'],
    minSize: 0,
    versions: { '20.04': [{ url: '{mirror}', suite: 'focal' }] },
    ...rest,
  })

const almaAt = (url: string, rest: object = {}): Source =>
  parseSource({
    ...SOURCES.get('alma'),
    mirror: `${url}/alma`,
    architectures: x86_64,
    keyrings: [signer.keyring],
    signed: true,
    versions: { 9: [{ name: '9', url: '{mirror}' }] },
    ...rest,
  })

/** Runs over sources and asserts that none of them can be read, with this code and message. */
async function fails(
  t: Test,
  runDirectory: RunDirectory,
  sources: readonly Source[],
  code: FailureCode,
  message = /./,
): Promise<void> {
  const summary = await runDirectory.run({ sources })
  t.match(summary, { published: 0, failed: {}, sourcesFailed: sources.length }, code)
  t.same(await runDirectory.records(), [])
  t.match(
    await runDirectory.sourceFailures(),
    sources
      .map(({ id }) => ({ source: id, failure: { code, message, attempts: 1 } }))
      .toSorted((a, b) => (a.source < b.source ? -1 : 1)),
  )
  t.same(await runDirectory.leftovers(), [], 'no files are left')
}

t.test(
  'events tell how far an index is read: its file, bytes of all bytes, and number of files',
  async (t) => {
    const runDirectory = await makeRunDirectory(t)
    fill(runDirectory)
    const { url } = await serve(t, runDirectory, [
      [
        /Packages\.xz$/,
        async (_, response) => {
          const bytes = readFileSync(
            join(runDirectory.directory, 'ubuntu/dists/focal/main/binary-amd64/Packages.xz'),
          )
          response.writeHead(200, { 'content-length': bytes.length })
          response.write(bytes.subarray(0, 100))
          await setTimeout(100)
          response.end(bytes.subarray(100))
        },
      ],
    ])
    const told: GenerateEvent[] = []
    const onEvent = (event: GenerateEvent) => void told.push(event)
    await runDirectory.run({ sources: [ubuntuAt(url)] }, { onEvent, dryRun: true, limit: 1 })
    const reading = told.filter((event) => event.event === 'reading')
    const about = { source: 'ubuntu', suite: 'focal', arch: 'x86_64' }
    const ofPackages = { ...about, url: /Packages\.xz$/, files: 2 }
    const size = reading.at(-1)!.size!
    t.ok(size > 100)
    t.match(reading.slice(-2), [
      { ...ofPackages, read: 100, size },
      { ...ofPackages, read: size, size },
    ])
    t.match(reading[0], { ...about, url: /focal\/InRelease$/, files: 1 })
    const end = told.findIndex(({ event }) => event === 'discovered')
    t.ok(told.findLastIndex(({ event }) => event === 'reading') < end, 'all of them before its end')
  },
)

t.test('each fault of an index server gives its own error code', async (t) => {
  const index = /InRelease$|repomd\.xml$/
  const short: Answer = (_, response) => {
    response.writeHead(200, { 'content-length': 100_000, connection: 'close' })
    response.write('Origin: Test\n', () => response.socket?.end())
  }
  const endless: Answer = (_, response) => {
    response.writeHead(200)
    const pour = () => {
      while (response.write(Buffer.alloc(65536, 'x')));
    }
    response.on('drain', pour)
    pour()
  }
  const html: Answer = (_, response) => {
    const headers = { 'content-type': 'text/html' }
    response.writeHead(200, headers).end('<html><body><h1>Sign in, please</h1></body></html>')
  }
  for (const [what, answer, apt, rpm = apt] of [
    ['the server stalls', () => {}, 'stalled'],
    [
      'the server resets the connection',
      (request) => void request.socket.resetAndDestroy(),
      'unreachable',
    ],
    ['the server announces more than it sends', short, 'truncated'],
    ['the server sends without end', endless, 'too_large'],
    ['the server answers 200 with HTML', html, 'invalid_signature', 'invalid_index'],
    [
      'the server answers 200 with an empty body',
      (_, response) => void response.end(),
      'invalid_signature',
      'invalid_index',
    ],
    ['the server answers 403', (_, response) => void response.writeHead(403).end(), 'unreachable'],
    [
      'the server answers 404',
      (_, response) => void response.writeHead(404).end(),
      'not_found_upstream',
    ],
    [
      'the server redirects in a circle',
      (r, response) => void response.writeHead(302, { location: r.url }).end(),
      'unreachable',
    ],
  ] as [string, Answer, FailureCode, FailureCode?][]) {
    await t.test(what, async (t) => {
      const runDirectory = await makeRunDirectory(t)
      const { url } = await serve(t, runDirectory, [[index, answer]])
      await fails(t, runDirectory, [ubuntuAt(url)], apt)
      const other = await makeRunDirectory(t)
      await fails(t, other, [almaAt(url, { keyrings: undefined, signed: false })], rpm)
    })
  }
})

t.test(
  'a source with a missing, wrong or expired signature is not read until it is repaired',
  async (t) => {
    const runDirectory = await makeRunDirectory(t)
    fill(runDirectory)
    const { url } = await serve(t, runDirectory)
    const both = (rest: object) => [ubuntuAt(url, rest), almaAt(url, rest)]
    const stranger = makeSigner(t)
    await fails(
      t,
      runDirectory,
      both({ keyrings: [stranger.keyring] }),
      'invalid_signature',
      /not made by a key in the keyring/,
    )
    await fails(
      t,
      runDirectory,
      both({ keyrings: ['/nowhere.gpg'] }),
      'no_keyring',
      /\/nowhere\.gpg/,
    )

    const release = join(runDirectory.directory, 'ubuntu/dists/focal/InRelease')
    const repomd = join(runDirectory.directory, 'alma/repodata/repomd.xml')
    const [signed, described] = [readFileSync(release, 'utf8'), readFileSync(repomd, 'utf8')]
    writeFileSync(release, signed.replace('Origin: Test', 'Origin: Tesa'))
    writeFileSync(repomd, described.replace('<revision>', '<revision>1'))
    await fails(t, runDirectory, both({}), 'invalid_signature', /does not match the content/)
    writeFileSync(repomd, described)

    const lapsed = makeSigner(t, { lapsed: true })
    const text = signed.replace(/^.*?\n\n/s, '').replace(/-----BEGIN.*/s, '')
    writeFileSync(release, lapsed.sign(text))
    signRepomd(join(runDirectory.directory, 'alma'), lapsed)
    await fails(
      t,
      runDirectory,
      both({ keyrings: [lapsed.keyring] }),
      'expired_signature',
      /has expired/,
    )
    rmSync(`${repomd}.asc`)
    await fails(t, runDirectory, [almaAt(url)], 'invalid_signature', /does not exist/)

    writeFileSync(release, signed)
    signRepomd(join(runDirectory.directory, 'alma'), signer)
    const sources = both({})
    t.match(await runDirectory.run({ sources }), { published: 2, sourcesFailed: 0 })
    t.same(await runDirectory.sourceFailures(), [], 'the failures of repaired sources are removed')
  },
)

t.test('an index or a package with another digest than its index names is rejected', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  fill(runDirectory)
  const { url } = await serve(t, runDirectory)
  const at = (folder: string, pattern: RegExp) => {
    const files = readdirSync(join(runDirectory.directory, folder), { recursive: true }) as string[]
    return join(runDirectory.directory, folder, files.find((file) => pattern.test(file))!)
  }
  /** Changes a byte of a file during `run`. */
  const withChangedByte = async (path: string, run: () => Promise<void>) => {
    const original = readFileSync(path)
    const bytes = Buffer.from(original)
    bytes[bytes.length - 5]! ^= 1
    writeFileSync(path, bytes)
    await run()
    writeFileSync(path, original)
  }
  const [ubuntu, alma] = [ubuntuAt(url), almaAt(url)]
  await withChangedByte(at('ubuntu', /Packages\.xz$/), () =>
    fails(t, runDirectory, [ubuntu], 'index_mismatch', /Packages/),
  )
  const others = await makeRunDirectory(t)
  await withChangedByte(at('alma', /primary\.xml/), () =>
    fails(t, others, [alma], 'index_mismatch', /primary/),
  )

  for (const [source, path] of [
    [ubuntu, at('ubuntu', /\.deb$/)],
    [alma, at('alma', /Packages\/.*\.rpm$/)],
  ] as const) {
    const fresh = await makeRunDirectory(t)
    await withChangedByte(path, async () => {
      t.match(await fresh.run({ sources: [source] }), {
        published: 0,
        failed: { digest_mismatch: 1 },
        sourcesFailed: 0,
      })
      t.match(await fresh.records(), [{ btf: undefined, failure: { code: 'digest_mismatch' } }])
      t.same(await fresh.leftovers(), [])
    })
  }
})

t.test('a source that cannot be read does not affect the others', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  fill(runDirectory)
  const { url } = await serve(t, runDirectory, [
    [/InRelease$/, (_, response) => void response.writeHead(500).end()],
  ])
  const sources = [ubuntuAt(url), almaAt(url)]
  const events: string[] = []
  const summary = await runDirectory.run(
    { sources },
    {
      onEvent: (event) => {
        if ('suite' in event && event.event !== 'reading')
          events.push(`${event.event} ${event.source} ${event.suite} ${event.arch}`)
      },
    },
  )
  t.match(summary, { published: 1, sourcesFailed: 1 })
  t.same(events.sort(), ['discovered alma 9 9 x86_64', 'source-failed ubuntu focal x86_64'])
})

t.test('an unchanged repository is read once, and later runs only revalidate it', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  fill(runDirectory)
  const { url, answered } = await serveDirectory(t, runDirectory.directory)
  const sources = [ubuntuAt(url), almaAt(url)]
  const run = async () => {
    const summary = await runDirectory.run({ sources })
    return {
      summary,
      answers: answered()
        .map((answer) => answer.replace(/^.*\//, ''))
        .sort(),
    }
  }
  t.match(await run(), { summary: { published: 2 } })
  t.match(await run(), {
    summary: { published: 0, skipped: 2 },
    answers: ['InRelease 304', 'repomd.xml 304', 'repomd.xml.asc 304'],
  })
})
