// BTF as a response body: encodings, entity tags, ranges.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { request } from 'undici'
import { negotiate, parseRange } from '../../../service/http/send.ts'
import { btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const raw = RAW.little
const sha256 = createHash('sha256').update(raw).digest('hex')
const testService = await startTestService(t, async (store) => [
  recordOf({}, { btf: await btfOf(store, raw) }),
])
const path = `${testService.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`

const get = async (headers: Record<string, string> = {}, method: 'GET' | 'HEAD' = 'GET') => {
  const { statusCode, headers: got, body } = await request(path, { headers, method })
  return { status: statusCode, headers: got, bytes: Buffer.from(await body.arrayBuffer()) }
}

t.test('every encoding decodes to the same bytes and has its own ETag', async (t) => {
  const decode = { identity: (b: Buffer) => b, gzip: gunzipSync, zstd: zstdDecompressSync }
  for (const [encoding, plain] of Object.entries(decode)) {
    const { status, headers, bytes } = await get({ 'accept-encoding': encoding })
    t.equal(status, 200)
    t.equal(headers['content-encoding'], encoding === 'identity' ? undefined : encoding)
    t.equal(headers.etag, encoding === 'identity' ? `"${sha256}"` : `"${sha256}-${encoding}"`)
    t.equal(Number(headers['content-length']), bytes.length)
    t.equal(headers.vary, 'accept-encoding')
    t.ok(plain(bytes).equals(raw), encoding)
  }
})

t.test('curl --compressed receives the raw bytes', async (t) => {
  const curl = promisify(execFile)('curl', ['-s', '--compressed', path], { encoding: 'buffer' })
  t.ok((await curl).stdout.equals(raw))
})

t.test('HEAD has the headers of GET and no body', async (t) => {
  for (const encoding of ['identity', 'gzip', 'zstd']) {
    const [got, head] = [
      await get({ 'accept-encoding': encoding }),
      await get({ 'accept-encoding': encoding }, 'HEAD'),
    ]
    t.equal(head.status, 200)
    t.equal(head.bytes.length, 0)
    for (const name of [
      'etag',
      'content-length',
      'content-encoding',
      'cache-control',
      'content-type',
    ])
      t.equal(head.headers[name], got.headers[name], `${encoding} ${name}`)
  }
})

t.test('a client that has the body gets 304', async (t) => {
  for (const tag of [`"${sha256}"`, `W/"${sha256}"`, `"x", "${sha256}"`, '*']) {
    const { status, headers, bytes } = await get({ 'if-none-match': tag })
    t.equal(status, 304, tag)
    t.equal(headers.etag, `"${sha256}"`)
    t.equal(bytes.length, 0)
  }
  t.equal((await get({ 'if-none-match': '"other"' })).status, 200)
  t.equal(
    (await get({ 'if-none-match': `"${sha256}"`, 'accept-encoding': 'zstd' })).status,
    200,
    'another encoding is another body',
  )
})

t.test('ranges apply to the raw bytes', async (t) => {
  const ranges = {
    'bytes=0-3': [0, 4],
    'bytes=10-': [10],
    'bytes=-5': [-5],
    'bytes=5-999999999': [5],
  } as const
  for (const [range, [start, end]] of Object.entries(ranges)) {
    const { status, headers, bytes } = await get({ range, 'accept-encoding': 'zstd' })
    t.equal(status, 206, range)
    t.ok(bytes.equals(raw.subarray(start, end)), range)
    t.match(headers['content-range'], new RegExp(`^bytes \\d+-\\d+/${raw.length}$`))
  }
  const beyond = await get({ range: `bytes=${raw.length}-` })
  t.equal(beyond.status, 416)
  t.equal(beyond.headers['content-range'], `bytes */${raw.length}`)
  t.equal(JSON.parse(beyond.bytes.toString()).code, 'invalid_range')
  for (const range of ['bytes=5-2', 'bytes=0-1,3-4', 'lines=1-2', 'bytes=-', 'bytes=a-b'])
    t.equal((await get({ range })).status, 200, `${range} is ignored`)
})

t.test('If-Range with another ETag gets the whole body', async (t) => {
  t.equal((await get({ range: 'bytes=0-3', 'if-range': `"${sha256}"` })).status, 206)
  const whole = await get({ range: 'bytes=0-3', 'if-range': '"other"' })
  t.equal(whole.status, 200)
  t.ok(whole.bytes.equals(raw))
})

t.test('the encoding with the highest weight is chosen', async (t) => {
  const best = {
    '': 'identity',
    gzip: 'gzip',
    'gzip, zstd': 'zstd',
    'gzip;q=1.0, zstd;q=0.5': 'gzip',
    'zstd;q=0, gzip;q=0': 'identity',
    '*': 'zstd',
    '*;q=0.1, identity;q=0.5': 'identity',
    'identity;q=0, gzip': 'gzip',
    'br, deflate': 'identity',
    GZIP: 'gzip',
    ';;;,,q=': 'identity',
  }
  for (const [header, encoding] of Object.entries(best))
    t.equal(negotiate(header), encoding, header)
  t.equal(negotiate(undefined), 'identity')
})

t.test('a parsed range is always inside the body', async (t) => {
  t.same(parseRange('bytes=0-0', 1), { start: 0, end: 0 })
  t.equal(parseRange('bytes=-0', 10), 'unsatisfiable')
  t.equal(parseRange('bytes=0-', 0), 'unsatisfiable')
  t.same(parseRange('bytes=-999', 10), { start: 0, end: 9 })
})
