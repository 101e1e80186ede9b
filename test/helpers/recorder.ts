// A generator for tests that kill it. It stores its records, each with BTF of its own, and publishes now and then. A
// restarted generator continues where it was killed.
import { ignoreNotFound } from '../../storage/error.ts'
import {
  type BtfInfo,
  type BuildRecord,
  buildOf,
  Catalog,
  openStore,
  putBlob,
  putRecord,
  recordKey,
  type Store,
} from '../../storage/index.ts'

const RECORDS = 500
const PUBLISHED_EVERY = 50

/** The records of the generator with this name, without BTF. */
export function recordsOf(name: string): BuildRecord[] {
  const now = '2026-11-01T12:00:00.000Z'
  return Array.from({ length: RECORDS }, (_, i) => ({
    schema: 1,
    kernel: { distro: 'debian', version: '12', arch: 'x86_64', release: `6.1.0-${i}-${name}` },
    package: { name: 'linux-image-dbg', version: '6.1.1-1', url: '', authenticated: 'none' },
    origin: 'pahole',
    tool: { name: 'pahole', version: '1.24', options: [], fingerprint: 'test' },
    createdAt: now,
    updatedAt: now,
  }))
}

export const keyOf = (record: BuildRecord): string => recordKey(record.kernel, buildOf(record))

/** Stores a record and its BTF. Returns false if it exists already. */
async function putNew(store: Store, record: BuildRecord): Promise<boolean> {
  if (await store.head(keyOf(record)).catch(ignoreNotFound)) return false
  const blob = await putBlob(store, Buffer.from(record.kernel.release))
  const btf: BtfInfo = { ...blob, types: 1, kinds: [], byteOrder: 'little', pointerSize: 8 }
  await putRecord(store, { ...record, btf })
  return true
}

async function putAll(url: string, name: string): Promise<void> {
  const store = await openStore(url)
  process.stdout.write('started\n')
  let written = 0
  for (const record of recordsOf(name)) {
    if ((await putNew(store, record)) && ++written % PUBLISHED_EVERY === 0)
      await Catalog.publish(store)
  }
  await Catalog.publish(store)
}

if (import.meta.main) await putAll(process.argv[2]!, process.argv[3]!)
