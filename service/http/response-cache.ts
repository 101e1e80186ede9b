/*
 * The response cache. After a reboot most of a fleet requests the same few files with the same headers. Such a response
 * depends only on the URL, two request headers and the catalog, so it is kept with the catalog's version. The cache holds
 * status and headers. The bytes stay in the bounded body cache; a response whose body was evicted there is built again.
 *
 * `sendFromCache` reads the cache as the last step before a handler: every hook, guard and validation has run by then,
 * and hooks on the response follow. Only the headers that describe the BTF are kept, never those of another request.
 */
import type { FastifyRequest } from 'fastify'
import { LRUCache } from 'lru-cache'
import type { Catalog } from '../../storage/index.ts'
import type { Bodies } from '../cache/btf-bodies.ts'

const MAX_RESPONSES = 4096
/** Characters of the longest key that is kept. */
const MAX_KEY = 1024

/** A response to a GET: 200 with a body, or 304 without. */
export interface CachedResponse {
  status: number
  /** the headers that describe the body; the key is in lower case */
  headers: Readonly<Record<string, string>>
  body?: Buffer
}

interface StoredResponse extends Pick<CachedResponse, 'status' | 'headers'> {
  catalogVersion: number
  /** the key of the body in the body cache; a 304 has none */
  bodyKey?: string
}

export interface ResponseCacheOptions {
  catalog: Pick<Catalog, 'version'>
  bodies: Pick<Bodies, 'held'>
}

export class ResponseCache {
  readonly #catalog: ResponseCacheOptions['catalog']
  readonly #bodies: ResponseCacheOptions['bodies']
  readonly #responses = new LRUCache<string, StoredResponse>({ max: MAX_RESPONSES })

  constructor({ catalog, bodies }: ResponseCacheOptions) {
    this.#catalog = catalog
    this.#bodies = bodies
  }

  /** The response to an equal request, if the catalog has not changed since and its body is still in memory. */
  find(request: FastifyRequest): CachedResponse | undefined {
    const stored = this.#responses.get(cacheKey(request))
    if (stored?.catalogVersion !== this.#catalog.version) return undefined
    if (stored.bodyKey === undefined) return stored
    const body = this.#bodies.held(stored.bodyKey)
    return body && { ...stored, body }
  }

  /** Keeps a response to a GET; `bodyKey` finds a body again. */
  set(request: FastifyRequest, { status, headers, body }: CachedResponse, bodyKey: string): void {
    const key = cacheKey(request)
    if (key === '' || key.length > MAX_KEY || (status !== 200 && status !== 304)) return
    const catalogVersion = this.#catalog.version
    this.#responses.set(key, { catalogVersion, status, headers, ...(body && { bodyKey }) })
  }
}

/** The parts of a request that its response depends on; '' for a request that is not cached. */
function cacheKey({ method, url, headers }: FastifyRequest): string {
  if (method !== 'GET' || headers.range !== undefined) return ''
  return `${url}\n${headers['accept-encoding'] ?? ''}\n${headers['if-none-match'] ?? ''}`
}
