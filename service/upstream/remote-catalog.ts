/*
 * The catalog of another btfmill, for a mirror: its snapshot, with the signature if a key is given. It is kept in a cache
 * with its entity tag, so that a run with nothing new reads some hundred bytes. A service without a snapshot has a list of
 * kernels; that has no signature.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  Catalog,
  openStore,
  SNAPSHOT_KEY,
  type StoreError,
  sha256Of,
  signatureKey,
} from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { RemoteServer } from '../client/remote.ts'
import { RemoteStore } from '../client/remote-store.ts'
import {
  FetchError,
  type RequestOptions,
  requestUnless,
  requestWithRetry,
} from '../client/request.ts'
import { requireRecent, verifySnapshot } from '../client/signed-catalog.ts'

export interface RemoteCatalogOptions {
  /** `http://HOST:PORT`, without a final slash */
  base: string
  /** a directory of this mirror alone */
  cache: string
  /** the text of a minisign public key that must have signed the catalog */
  publicKey?: string | undefined
  /** with a public key: seconds since the catalog was signed, at most */
  maxAge?: number | undefined
  request: RequestOptions
  /** called with the bytes of each body */
  onRead: (bytes: number) => void
}

/** A snapshot, and its entity tag. */
interface CachedSnapshot {
  bytes: Buffer
  etag: string
}

/**
 * Reads the catalog of a service. Errors: `FetchError`: `invalid_signature`, `outdated_catalog`, `invalid_response`,
 * `refused`, `unreachable`, `not_writable`.
 */
export async function readRemoteCatalog(options: RemoteCatalogOptions): Promise<Catalog> {
  const snapshot = await readSnapshot(options).catch((error: unknown) => {
    const isMissing = error instanceof FetchError && error.problem === 'not_found'
    if (!isMissing || options.publicKey !== undefined) throw error
  })
  if (!snapshot) return await readList(options)
  const store = await openStore('memory:')
  await store.put(SNAPSHOT_KEY, snapshot)
  let problem: StoreError | undefined
  const catalog = await Catalog.openSnapshot(store, (error) => {
    problem = error
  })
  if (problem) throw new FetchError('invalid_response', problem.message, { cause: problem })
  return catalog
}

async function readSnapshot(options: RemoteCatalogOptions): Promise<Buffer> {
  const { base, cache, request, onRead } = options
  const known = await readCached(cache)
  const url = new URL(`${base}/v1/${SNAPSHOT_KEY}`)
  const fetched = (etag: string | undefined) =>
    requestUnless(
      url,
      async (bytes, headers) => {
        onRead(bytes.length)
        await verify(bytes, options)
        return { bytes, etag: headers.etag }
      },
      { ...request, encoding: 'identity', etag },
    )
  const found = await fetched(known?.etag)
  if (!found && known) {
    if (await verify(known.bytes, options).then(() => true, isNotSigned)) return known.bytes
    // it was replaced after the first answer
    return (await fetched(undefined))!.bytes
  }
  const { bytes, etag } = found!
  if (etag !== undefined) await writeCached(cache, { bytes, etag })
  return bytes
}

/** For `catch`: a signature of another snapshot. */
function isNotSigned(error: unknown): false {
  if (error instanceof FetchError && error.code === 'invalid_signature') return false
  throw error
}

async function verify(bytes: Buffer, options: RemoteCatalogOptions): Promise<void> {
  const { base, cache, publicKey, maxAge, request, onRead } = options
  if (publicKey === undefined) return
  const url = new URL(`${base}/v1/${signatureKey(SNAPSHOT_KEY)}`)
  const read = (text: Buffer) => {
    onRead(text.length)
    return text.toString('utf8')
  }
  const signature = await requestWithRetry(url, read, { ...request, encoding: 'identity' })
  const time = verifySnapshot(bytes, signature, publicKey)
  await requireRecent(time, join(cache, `signed-${sha256Of(publicKey).slice(0, 16)}`), maxAge)
}

/** The records of a service that has no snapshot. */
async function readList({ base, request: { token } }: RemoteCatalogOptions): Promise<Catalog> {
  const server = new RemoteServer(base, token === undefined ? {} : { token })
  return await Catalog.open(new RemoteStore(server), (error) => {
    throw new FetchError('invalid_response', error.message, { cause: error })
  })
}

const SNAPSHOT = 'snapshot.ndjson.zst'
const ETAG = 'etag.json'

/** The snapshot of the last run, if its file is whole. */
async function readCached(cache: string): Promise<CachedSnapshot | undefined> {
  try {
    const bytes = await readFile(join(cache, SNAPSHOT))
    const { etag, sha256 } = JSON.parse(await readFile(join(cache, ETAG), 'utf8'))
    return typeof etag === 'string' && sha256 === sha256Of(bytes) ? { bytes, etag } : undefined
  } catch {
    return undefined // there is none, or it is damaged
  }
}

async function writeCached(cache: string, { bytes, etag }: CachedSnapshot): Promise<void> {
  try {
    await mkdir(cache, { recursive: true })
    await writeWhole(join(cache, SNAPSHOT), bytes)
    const state = JSON.stringify({ etag, sha256: sha256Of(bytes) })
    await writeWhole(join(cache, ETAG), Buffer.from(state))
  } catch (cause) {
    throw new FetchError('not_writable', `${cache}: ${(cause as Error).message}`, { cause })
  }
}
