// Derived BTF: for an older libbpf, and with the types of modules.
import { execFile, execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { isWrapped, mergeBtf, parseBtf, toDialect, wrapInElf } from '../../../bpf/index.ts'
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

t.test('container=elf wraps the BTF, with an ETag of its own, in every form', async (t) => {
  const form = { byteOrder: base.byteOrder, pointerSize: base.pointerSize }
  const wrapped = Buffer.from(wrapInElf(RAW.little, form))
  t.ok((await get('no-modules')).bytes.equals(RAW.little), 'what is cached now')
  const { status, bytes, headers } = await get('no-modules?container=elf')
  t.equal(status, 200)
  t.ok(isWrapped(bytes))
  t.ok(bytes.equals(wrapped))
  t.equal(dumpOf(bytes), dumpOf(RAW.little))
  t.equal(headers.etag, `"${sha256Of(wrapped)}"`)
  const location = String(headers['content-location'])
  const byDigest = await ask(`${testService.url}${location}`)
  t.ok(byDigest.bytes.equals(wrapped), location)
  t.notMatch(byDigest.headers['cache-control'], /immutable/)
  const both = await get('no-modules?container=elf&dialect=libbpf-0.5')
  t.ok(both.bytes.equals(Buffer.from(wrapInElf(old, form))))
  const again = await ask(`${testService.url}${both.headers['content-location']}`)
  t.ok(again.bytes.equals(both.bytes))
})

t.test('archives at the drop-in addresses are in the dialect that is asked for', async (t) => {
  const unpack = (input: Buffer) => execFileSync('tar', ['xJOf', '-'], { input, maxBuffer: 1e9 })
  const names = 'distribution=debian&distribution_version=12&arch=x86_64'
  const paths = [
    '/debian/12/x86_64/no-modules.btf.tar.xz?',
    '/btfs/debian/12/x86_64/no-modules.btf.tar.xz?',
    `/api/v1/download?${names}&kernel_version=no-modules&`,
  ]
  for (const path of paths) {
    const plain = await ask(`${testService.url}${path}`.replace(/[?&]$/, ''))
    t.ok(unpack(plain.bytes).equals(RAW.little), path)
    const converted = await ask(`${testService.url}${path}dialect=libbpf-0.5`)
    t.ok(unpack(converted.bytes).equals(old), path)
    t.equal(converted.headers.etag, `"${sha256Of(converted.bytes)}"`)
    t.not(converted.headers.etag, plain.headers.etag)
  }
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
    /btfmill_bodies_built_total\{kind="derived"\} 6\n/,
    'two dialects, merged, both, two in ELF, and this',
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
