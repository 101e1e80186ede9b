// fetchBtf with a pack: in a file, and on file servers that behave in several ways.
import { readFileSync, writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type FetchOptions, fetchBtf } from '../../../service/client/client.ts'
import { openStore, sha256Of } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { framesAt, nthBtf, putSeries, writePackOf } from '../../helpers/packs.ts'
import { startServer } from '../../helpers/test-server.ts'

const directory = t.testdir()
const at = (name: string) => join(directory, name)
const store = await openStore('memory:')
const records = await putSeries(store, 12)
await putSeries(store, 3, { distro: 'ubuntu', from: 20 })
const bytes = await writePackOf(store, at('a.btfpack'))
const { kernel } = records[9]!
const raw = nthBtf(9)

const quick = (t: Test, pack: string, rest: FetchOptions = {}): FetchOptions => ({
  ...{ pack, kernel, cache: join(t.testdir({}), 'cache') },
  ...{ attempts: 2, minDelay: 5, timeout: 2000 },
  ...rest,
})

/** Answers with the range that is asked for. */
const withRanges: RequestListener = ({ headers }, response) => {
  const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '') ?? []
  const [from, to] = [Number(start), Math.min(Number(end) + 1, bytes.length)]
  const range = { 'content-range': `bytes ${from}-${to - 1}/${bytes.length}` }
  response.writeHead(206, range).end(bytes.subarray(from, to))
}

t.test('a kernel is read out of a pack in a file, then from the cache', async (t) => {
  const options = quick(t, at('a.btfpack'))
  const first = await fetchBtf(options)
  const name = 'debian/12/x86_64/6.1.0-10-amd64'
  t.match(first, { origin: 'pack', sha256: sha256Of(raw), found: { name, by: 'name' } })
  t.same(readFileSync(first.path), raw)
  t.match(await fetchBtf({ ...options, pack: at('gone') }), { origin: 'cache', path: first.path })
})

t.test('of a URL two ranges are read, without a token', async (t) => {
  const { url, requests } = await startServer(t, withRanges)
  const fetched = await fetchBtf(quick(t, `${url}/a.btfpack`, { token: 'secret' }))
  t.same(readFileSync(fetched.path), raw)
  t.equal(requests.length, 2)
  t.match(requests[1]!.headers.range, new RegExp(`^bytes=${framesAt(bytes)}-`))
  t.same(
    requests.map(({ headers }) => headers.authorization),
    [undefined, undefined],
  )
})

t.test('a server without ranges, or that redirects, serves a pack', async (t) => {
  const whole = await startServer(t, (_, response) => response.end(bytes))
  t.same(readFileSync((await fetchBtf(quick(t, `${whole.url}/a`))).path), raw)
  const { url } = await startServer(t, withRanges)
  const there = await startServer(t, (_, response) =>
    response.writeHead(302, { location: `${url}/there` }).end(),
  )
  t.same(readFileSync((await fetchBtf(quick(t, `${there.url}/a`))).path), raw)
})

t.test('a transfer that breaks is made again, and one that lies is an error', async (t) => {
  let broken = 0
  const breaking = await startServer(t, (request, response) => {
    if (broken++ % 2 === 1) return withRanges(request, response)
    response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, 100))
    setTimeout(() => response.destroy(), 20)
  })
  t.same(readFileSync((await fetchBtf(quick(t, `${breaking.url}/a`))).path), raw)
  const answers: [RequestListener, string][] = [
    [(_, response) => response.end('<html>no pack</html>'), 'invalid_pack'],
    [(_, response) => response.end(bytes.subarray(0, framesAt(bytes) + 10)), 'invalid_pack'],
    [(_, response) => response.writeHead(206).end(bytes), 'invalid_response'],
    [
      (_, response) => response.writeHead(206, { 'content-range': 'bytes 9-99/100' }).end(bytes),
      'invalid_response',
    ],
    [(_, response) => response.writeHead(404).end(), 'refused'],
    [(_, response) => response.socket!.destroy(), 'unreachable'],
  ]
  for (const [answer, code] of answers) {
    const { url } = await startServer(t, answer)
    await t.rejects(fetchBtf(quick(t, `${url}/a`)), { name: 'FetchError', code })
  }
})

t.test('a pack without the kernel, a damaged one and none at all are errors', async (t) => {
  const other = { ...kernel, release: '6.1.0-99-amd64' }
  await t.rejects(fetchBtf(quick(t, at('a.btfpack'), { kernel: other })), {
    code: 'refused',
    problem: 'unknown_kernel',
  })
  const damaged = Buffer.from(bytes)
  damaged.fill(0, framesAt(bytes) + 8)
  writeFileSync(at('damaged'), damaged)
  await t.rejects(fetchBtf(quick(t, at('damaged'))), { code: 'invalid_pack' })
  await t.rejects(fetchBtf(quick(t, at('none'))), { code: 'unreachable', message: /none/ })
})

t.test('options of a server do not go with a pack', async (t) => {
  for (const rest of [{ server: 'http://127.0.0.1:1' }, { publicKey: 'x' }, { wait: true }])
    await t.rejects(fetchBtf(quick(t, at('a.btfpack'), rest)), { code: 'invalid_options' })
})

t.test('btfmill fetch --pack writes the BTF, whatever BTFMILL_SERVER is', async (t) => {
  const { distro, version, arch, release } = kernel
  const named = ['--distro', distro, '--distro-version', version, '--arch', arch]
  const file = at('kernel.btf')
  process.env.BTFMILL_SERVER = 'http://127.0.0.1:1'
  t.teardown(() => delete process.env.BTFMILL_SERVER)
  const pack = ['--pack', at('a.btfpack')]
  const fetched = await run('fetch', ...pack, ...named, '--release', release, '-o', file)
  t.match(fetched, { status: 0, stdout: `${file}\n` })
  t.match(fetched.stderr, `from ${at('a.btfpack')}, SHA-256 ${sha256Of(raw)}`)
  t.same(readFileSync(file), raw)
  t.match(await run('fetch', ...pack, '--wait'), { status: 2 })
})
