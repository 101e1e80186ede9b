import { rmSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { type PlanOptions, plan } from '../../../generator/jobs/plan.ts'
import type { KernelPackage } from '../../../generator/sources/source.ts'
import { type BuildRecord, openStore, putRecord, recordKey } from '../../../storage/index.ts'

const NOW = new Date('2026-11-01T12:00:00.000Z')
const later = (hours: number) => new Date(NOW.getTime() + hours * 3_600_000).toISOString()

const kernel = { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-9-686' }
const SHA256 = 'a'.repeat(64)
const found: KernelPackage = {
  source: 'debian',
  kernel,
  name: 'linux-image-6.1.0-9-686-dbg',
  version: '6.1.90-1',
  url: 'http://host.example/a.deb',
  checksum: { algorithm: 'sha256', hex: SHA256 },
  trust: 'index',
  format: 'deb',
  vmlinux: [],
  role: 'debug',
}

/** The record of a successful job, with the changes of a test. */
function record(rest: Partial<BuildRecord>): BuildRecord {
  const { name, version, url } = found
  return {
    schema: 1,
    kernel,
    package: { name, version, url, sha256: SHA256, size: 1000, authenticated: 'index' },
    origin: 'pahole',
    btf: {
      sha256: 'b'.repeat(64),
      size: 1000,
      types: 10,
      kinds: ['INT'],
      byteOrder: 'little',
      pointerSize: 4,
    },
    tool: { name: 'pahole', version: '1.24', options: [], fingerprint: 'current' },
    createdAt: NOW.toISOString(),
    updatedAt: NOW.toISOString(),
    ...rest,
  }
}

/** The record of a failed job. */
function failed(retryAt: string | null): BuildRecord {
  const { btf: _, ...rest } = record({})
  const at = NOW.toISOString()
  return { ...rest, failure: { code: 'stalled', message: '', attempts: 1, at, retryAt } }
}

/** The verdict on the package if the store has this record. */
async function verdict(
  known: BuildRecord | undefined,
  options: Partial<PlanOptions> = {},
): Promise<string> {
  const store = await openStore('memory:')
  if (known) await putRecord(store, known)
  const settings = { store, fingerprint: 'current', earlyStop: false, now: NOW, ...options }
  const { jobs, skipped, postponed } = await plan([found], settings)
  t.equal(jobs.length + skipped + postponed, 1)
  if (jobs.length > 0) return 'due'
  return skipped > 0 ? 'skipped' : 'postponed'
}

t.test(
  'a package that the store has is skipped, unless the package or the fingerprint has changed',
  async (t) => {
    t.equal(await verdict(undefined), 'due', 'unknown package')
    t.equal(await verdict(record({})), 'skipped')
    t.equal(
      await verdict(record({}), { fingerprint: 'newer' }),
      'due',
      'made by another pahole or btfmill',
    )
    const { package: from } = record({})
    const rebuilt = record({ package: { ...from, sha256: 'c'.repeat(64) } })
    t.equal(await verdict(rebuilt), 'due', 'another file under the same version')
    const other = record({ package: { ...from, version: '6.1.90-2' } })
    t.equal(await verdict(other), 'due', 'the record is of another build of the kernel')
  },
)

t.test('a package that was read in part is due when a run reads whole packages', async (t) => {
  const { sha256: _, ...from } = record({}).package
  const prefix = record({ package: { ...from, authenticated: 'prefix' } })
  t.equal(await verdict(prefix), 'due')
  t.equal(await verdict(prefix, { earlyStop: true }), 'skipped')
  t.equal(await verdict(record({}), { earlyStop: true }), 'skipped')
})

t.test(
  'a failed package is postponed until its retry is due, or the fingerprint has changed',
  async (t) => {
    t.equal(await verdict(failed(later(1))), 'postponed')
    t.equal(await verdict(failed(later(0))), 'due')
    t.equal(await verdict(failed(null)), 'postponed')
    t.equal(await verdict(failed(null), { fingerprint: 'newer' }), 'due')
    const { failure } = failed(null)
    t.equal(
      await verdict(record({ failure: failure! })),
      'postponed',
      'older BTF makes no difference',
    )
  },
)

t.test('a failure that a fast clock recorded is due at once', async (t) => {
  const now = new Date(NOW.getTime() - 1)
  t.equal(await verdict(failed(later(24 * 365)), { now }), 'due')
  t.equal(await verdict(failed(null), { now }), 'postponed', 'unless it is never retried')
})

t.test('a package whose record is invalid is due', async (t) => {
  const store = await openStore('memory:')
  await store.put(recordKey(kernel, found.version), Buffer.from('{"schema": 0}'))
  const { jobs } = await plan([found], { store, fingerprint: 'current', earlyStop: false })
  t.same(jobs, [found])
})

t.test('a record that cannot be read, or is of a newer btfmill, is left alone', async (t) => {
  const store = await openStore(`file:${t.testdir()}/store`)
  await store.put(recordKey(kernel, found.version), Buffer.from('{"schema": 2}'))
  const other = { ...found, kernel: { ...kernel, release: '6.1.0-8-686' } }
  const key = recordKey(other.kernel, other.version)
  await store.put(key, Buffer.from('x'))
  rmSync(join(store.url.slice('file:'.length), key))
  symlinkSync(basename(key), join(store.url.slice('file:'.length), key))
  const settings = { store, fingerprint: 'current', earlyStop: false }
  t.same(await plan([found, other], settings), { jobs: [], skipped: 0, postponed: 2 })
})

t.test('a store that cannot be read makes the plan fail', async (t) => {
  const store = await openStore(`file:${t.testdir()}/store`)
  store.get = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }))
  const settings = { store, fingerprint: 'current', earlyStop: false }
  await t.rejects(plan([found], settings), { code: 'EIO' })
})

t.test('the limit counts skipped packages, too', async (t) => {
  const store = await openStore('memory:')
  await putRecord(store, record({}))
  const older = { ...found, kernel: { ...kernel, release: '6.1.0-8-686' } }
  const settings = { store, fingerprint: 'current', earlyStop: false, now: NOW }
  t.same(await plan([found, older], { ...settings, limit: 1 }), {
    jobs: [],
    skipped: 1,
    postponed: 0,
  })
  t.same(await plan([found, older], settings), { jobs: [older], skipped: 1, postponed: 0 })
})
