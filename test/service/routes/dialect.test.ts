// Derived BTF: for an older libbpf, and with the types of modules.
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { mergeBtf, parseBtf, toDialect } from '../../../bpf/index.ts'
import { type BuildRecord, putBlob, sha256Of } from '../../../storage/index.ts'
import { bpftoolDump, fixture } from '../../helpers/fixtures.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const MODULE = fixture('module-x86_64.btf')
const base = parseBtf(RAW.little)
const merged = Buffer.from(mergeBtf(base, [parseBtf(MODULE, { base })]))
const old = Buffer.from(toDialect(base, 'libbpf-0.5'))
const oldAndMerged = Buffer.from(toDialect(parseBtf(merged), 'libbpf-0.5'))

/** A record's entry for a module's split BTF. */
const infoOf = (like: NonNullable<BuildRecord['btf']>, raw: Buffer) => ({
  ...like,
  sha256: sha256Of(raw),
  size: raw.length,
})

/** Wraps a store and counts the reads of each object. */
const gets = new Map<string, number>()
const testService = await startTestService(t, async (store) => {
  const btf = await btfOf(store, RAW.little)
  await putBlob(store, MODULE)
  const modules = { example: infoOf(btf, MODULE) }
  const get = store.get.bind(store)
  store.get = (key, range) => {
    gets.set(key, (gets.get(key) ?? 0) + 1)
    return get(key, range)
  }
  return [
    recordOf({}, { btf, modules }),
    recordOf({ release: 'no-modules' }, { btf }),
    recordOf({ release: 'two' }, { btf, modules }),
    recordOf({ release: 'two' }, { btf, package: { ...recordOf({}).package, version: 'other' } }),
  ]
})
const path = '/v1/btf/debian/12/x86_64'
const get = (query: string, headers = {}) => ask(`${testService.url}${path}/${query}`, headers)

/** bpftool's dump of these bytes, which libbpf parses. */
function dumpOf(raw: Buffer): string {
  const file = join(t.testdirName, 'btf')
  writeFileSync(file, raw)
  return bpftoolDump(file)
}

t.testdir({})

t.test('a dialect has the bytes that bpf/ makes, and their digest as ETag', async (t) => {
  const { status, bytes, headers } = await get('6.1.0-1-amd64?dialect=libbpf-0.5')
  t.equal(status, 200)
  t.ok(bytes.equals(old))
  t.notMatch(dumpOf(bytes), /DECL_TAG|TYPE_TAG|ENUM64/)
  t.match(dumpOf(RAW.little), /DECL_TAG|TYPE_TAG|ENUM64/, 'which it has')
  t.equal(headers.etag, `"${sha256Of(old)}"`)
  t.notMatch(headers['cache-control'], /immutable/)
  const location = String(headers['content-location'])
  t.ok((await ask(`${testService.url}${location}`)).bytes.equals(old), location)
})

t.test('modules=merged has the bytes that bpf/ makes of kernel and modules', async (t) => {
  const { bytes, headers } = await get('6.1.0-1-amd64?modules=merged')
  t.ok(bytes.equals(merged))
  t.ok(dumpOf(bytes).length > dumpOf(RAW.little).length)
  t.equal(headers['content-location'], undefined, 'no digest names it')
  const both = await get('6.1.0-1-amd64?modules=merged&dialect=libbpf-0.5')
  t.ok(both.bytes.equals(oldAndMerged))
  const none = await get('no-modules?modules=merged')
  t.ok(none.bytes.equals(RAW.little), 'of a kernel without any, its own')
})

t.test(
  'builds that differ only in their modules are ambiguous only with modules=merged',
  async (t) => {
    t.equal((await get('two')).status, 200)
    t.match((await get('two?modules=merged')).json, { code: 'ambiguous' })
  },
)

t.test('derived BTF supports every encoding, ranges and 304', async (t) => {
  const query = '6.1.0-1-amd64?dialect=libbpf-0.5'
  const zstd = await get(query, { 'accept-encoding': 'zstd' })
  t.equal(zstd.headers.etag, `"${sha256Of(old)}-zstd"`)
  t.ok(zstdDecompressSync(zstd.bytes).equals(old))
  const part = await get(query, { range: 'bytes=4-7' })
  t.equal(part.status, 206)
  t.ok(part.bytes.equals(old.subarray(4, 8)))
  t.equal((await get(query, { 'if-none-match': `"${sha256Of(old)}"` })).status, 304)
  const head = await ask(`${testService.url}${path}/${query}`, {}, 'HEAD')
  t.equal(Number(head.headers['content-length']), old.length)
  t.equal(head.bytes.length, 0)
})

t.test('concurrent requests read and derive BTF once', async (t) => {
  const { url } = testService
  await Promise.all(
    Array.from({ length: 20 }, () =>
      ask(`${url}${path}/6.1.0-1-amd64?modules=merged&dialect=libbpf-0.3`),
    ),
  )
  const metrics = (await ask(`${url}/metrics`)).bytes.toString()
  t.match(
    metrics,
    /btfmill_bodies_built_total\{kind="derived"\} 4\n/,
    'two dialects, merged, both, and this',
  )
  for (const [key, times] of gets) if (key.startsWith('blobs/')) t.equal(times, 1, key)
})

t.test('libbpf reads derived BTF as it was downloaded', async (t) => {
  const file = join(t.testdir({}), 'merged.btf')
  await promisify(execFile)('curl', [
    ...['--silent', '--fail', '--compressed', '-o', file],
    `${testService.url}${path}/6.1.0-1-amd64?modules=merged`,
  ])
  t.equal(bpftoolDump(file), dumpOf(merged))
})
