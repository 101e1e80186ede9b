/*
 * Checks BTF that an upstream has sent, and keeps it: blob, record, and the blob again, in case gc has removed an equal one
 * before the record named it. The bytes are unpacked, parsed and walked in a thread with limits. BTF that was made or
 * imported here is never replaced.
 */
import { BtfError } from '../../bpf/index.ts'
import {
  type BtfInfo,
  type BuildRecord,
  buildOf,
  isUnusableRecord,
  type KernelName,
  keepArchive,
  putBlob,
  putRecord,
  readRecord,
  recordKey,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import type { Pool } from '../threads/pool.ts'
import { UpstreamError } from './error.ts'
import type { SentBtf } from './source.ts'

export interface KeepOptions {
  store: Store
  pool: Pool
  /** tells whether a kernel may be taken over */
  allows: (kernel: KernelName) => boolean
  /** called with the record of an archive that is in the store's tree, and not in its manifest */
  onArchive: (record: BuildRecord) => void
  signal: AbortSignal
}

/**
 * Returns the records that were kept. Errors: `UpstreamError`: `digest_mismatch`, `invalid_btf`, `too_complex`,
 * `not_kept`; the signal's reason.
 */
export async function keepSent(
  sent: SentBtf,
  { store, pool, allows, onArchive, signal }: KeepOptions,
): Promise<BuildRecord[]> {
  const { raw, btf } = await inspect(sent, pool, signal)
  const kept: BuildRecord[] = []
  try {
    for (const record of sent.records(btf)) {
      if (!allows(record.kernel)) continue
      if (!(await keepRecord(store, record, raw))) continue
      kept.push(record)
      if (sent.archive && (await keepArchive(store, record, sent.archive))) onArchive(record)
    }
    return kept
  } catch (cause) {
    if (!(cause instanceof StoreError)) throw cause
    throw new UpstreamError('not_kept', `the store does not take it: ${cause.message}`, { cause })
  }
}

async function inspect(
  { bytes, encoding, arch, sha256 }: SentBtf,
  pool: Pool,
  signal: AbortSignal,
): Promise<{ raw: Buffer; btf: BtfInfo }> {
  try {
    const { raw, btf } = await pool.run('inspect', { bytes, encoding, arch }, signal)
    if (sha256 === undefined || btf.sha256 === sha256)
      return { raw: Buffer.from(raw.buffer, raw.byteOffset, raw.length), btf }
    const message = `the BTF has the SHA-256 ${btf.sha256}: announced was ${sha256}`
    throw new UpstreamError('digest_mismatch', message)
  } catch (cause) {
    const { message } = cause as Error
    if (cause instanceof BtfError) throw new UpstreamError('invalid_btf', message, { cause })
    if (cause instanceof StoreError) throw new UpstreamError('digest_mismatch', message, { cause })
    if (cause instanceof ServiceError && cause.code === 'too_complex')
      throw new UpstreamError('too_complex', message, { cause })
    throw cause
  }
}

/** Keeps a record and its BTF, unless BTF that was made or imported here is there. Errors: those of the store. */
export async function keepRecord(
  store: Store,
  record: BuildRecord,
  raw: Uint8Array,
): Promise<boolean> {
  const key = recordKey(record.kernel, buildOf(record))
  const condition = await conditionFor(store, key)
  if (!condition) return false
  await putBlob(store, raw)
  try {
    await putRecord(store, record, condition)
  } catch (error) {
    // another writer was faster: what it has kept serves as well
    if (error instanceof StoreError && error.code === 'precondition_failed') return true
    throw error
  }
  await putBlob(store, raw)
  return true
}

/** Under which condition a record may be written; undefined if it must not be. Errors: those of the store. */
export async function conditionFor(
  store: Store,
  key: string,
): Promise<{ ifAbsent: true } | { ifMatch: string } | undefined> {
  const head = await store.head(key).catch(ignoreMissing)
  if (!head) return { ifAbsent: true }
  const known = await readRecord(store, key).catch((error: unknown) => {
    if (isUnusableRecord(error)) return 'unusable' as const
    return ignoreMissing(error)
  })
  // a record of a newer btfmill is not replaced
  if (known === 'unusable') return undefined
  return known?.btf && !known.takenFrom ? undefined : { ifMatch: head.etag }
}

function ignoreMissing(error: unknown): undefined {
  if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
}
