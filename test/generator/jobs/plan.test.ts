import t from 'tap'
import { type PlanOptions, plan } from '../../../generator/jobs/plan.ts'
import type { KernelPackage } from '../../../generator/sources/source.ts'
import { type BuildRecord, openStore, putRecord, recordKey } from '../../../storage/index.ts'

const NOW = new Date('2026-11-01T12:00:00.000Z')
const later = (hours: number) => new Date(NOW.getTime() + hours * 3_600_000).toISOString()

const kernel = { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-9-686' }
const SHA256 = 'a'.repeat(64)
const offer: KernelPackage = {
  source: 'debian',
  kernel,
  name: 'linux-image-6.1.0-9-686-dbg',
  version: '6.1.90-1',
  url: 'http://host.example/a.deb',
  checksum: { algorithm: 'sha256', hex: SHA256 },
  trust: 'index',
  format: 'deb',
  vmlinux: [],
}

/** The record of a run that went well, but for what a test says. */
function record(rest: Partial<BuildRecord>): BuildRecord {
  const { name, version, url } = offer
  return {
    schema: 1,
    kernel,
    package: { name, version, url, sha256: SHA256, size: 1000, authenticated: 'index' },
    origin: 'pahole',
    btf: {
      ...{ sha256: 'b'.repeat(64), size: 1000, types: 10, kinds: ['INT'] },
      ...{ byteOrder: 'little', pointerSize: 4 },
    },
    tool: { name: 'pahole', version: '1.24', options: [], fingerprint: 'current' },
    createdAt: NOW.toISOString(),
    updatedAt: NOW.toISOString(),
    ...rest,
  }
}

/** A record of a failure alone. */
function failed(retryAt: string | null): BuildRecord {
  const { btf: _, ...rest } = record({})
  const at = NOW.toISOString()
  return { ...rest, failure: { code: 'stalled', message: '', attempts: 1, at, retryAt } }
}

/** What becomes of the package when the store has this. */
async function verdict(
  known: BuildRecord | undefined,
  options: Partial<PlanOptions> = {},
): Promise<string> {
  const store = await openStore('memory:')
  if (known) await putRecord(store, known)
  const settings = { store, fingerprint: 'current', earlyStop: false, now: NOW, ...options }
  const { jobs, skipped, postponed } = await plan([offer], settings)
  t.equal(jobs.length + skipped + postponed, 1)
  if (jobs.length > 0) return 'due'
  return skipped > 0 ? 'skipped' : 'postponed'
}

t.test('what the store has is skipped, as long as nothing of it changed', async (t) => {
  t.equal(await verdict(undefined), 'due', 'not known')
  t.equal(await verdict(record({})), 'skipped')
  t.equal(await verdict(record({}), { fingerprint: 'newer' }), 'due', 'another pahole or btfmill')
  const { package: from } = record({})
  const rebuilt = record({ package: { ...from, sha256: 'c'.repeat(64) } })
  t.equal(await verdict(rebuilt), 'due', 'another file under the same version')
  const other = record({ package: { ...from, version: '6.1.90-2' } })
  t.equal(await verdict(other), 'due', 'only another build of the kernel')
})

t.test('what was read in part is due when it is to be read whole', async (t) => {
  const { sha256: _, ...from } = record({}).package
  const prefix = record({ package: { ...from, authenticated: 'prefix' } })
  t.equal(await verdict(prefix), 'due')
  t.equal(await verdict(prefix, { earlyStop: true }), 'skipped')
  t.equal(await verdict(record({}), { earlyStop: true }), 'skipped')
})

t.test('failures wait until they are due, or for another fingerprint', async (t) => {
  t.equal(await verdict(failed(later(1))), 'postponed')
  t.equal(await verdict(failed(later(0))), 'due')
  t.equal(await verdict(failed(null)), 'postponed')
  t.equal(await verdict(failed(null), { fingerprint: 'newer' }), 'due')
  const { failure } = failed(null)
  t.equal(await verdict(record({ failure: failure! })), 'postponed', 'with older BTF')
})

t.test('a failure of a clock that was ahead is due at once', async (t) => {
  const now = new Date(NOW.getTime() - 1)
  t.equal(await verdict(failed(later(24 * 365)), { now }), 'due')
  t.equal(await verdict(failed(null), { now }), 'postponed', 'what never is is not')
})

t.test('a record that does not read is made again', async (t) => {
  const store = await openStore('memory:')
  await store.put(recordKey(kernel, offer.version), Buffer.from('{"schema": 2}'))
  const { jobs } = await plan([offer], { store, fingerprint: 'current', earlyStop: false })
  t.same(jobs, [offer])
})

t.test('a store that does not answer is not taken for an empty one', async (t) => {
  const store = await openStore(`file:${t.testdir()}/store`)
  store.get = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }))
  const settings = { store, fingerprint: 'current', earlyStop: false }
  await t.rejects(plan([offer], settings), { code: 'EIO' })
})

t.test('the limit counts what is skipped, too: the newest, whether done or not', async (t) => {
  const store = await openStore('memory:')
  await putRecord(store, record({}))
  const older = { ...offer, kernel: { ...kernel, release: '6.1.0-8-686' } }
  const settings = { store, fingerprint: 'current', earlyStop: false, now: NOW }
  t.same(await plan([offer, older], { ...settings, limit: 1 }), {
    jobs: [],
    skipped: 1,
    postponed: 0,
  })
  t.same(await plan([offer, older], settings), { jobs: [older], skipped: 1, postponed: 0 })
})
