/*
 * Answers that were given before, ready to be given again. After a reboot most of a fleet asks for the same few files
 * in the same words, and what an answer says follows from the address, two headers of the request, and the catalog: so
 * who asks as another did gets that answer before anything else is done for it, but for the log and the metrics. Bodies
 * stay where they are, in the bounded memory; an answer whose body had to go, or that is older than the catalog, is
 * worked out anew.
 */
import type { IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { LRUCache } from 'lru-cache'
import type { Catalog } from '../../storage/index.ts'
import type { Bodies } from '../cache/btf-bodies.ts'
import type { Config } from '../config.ts'
import type { Readiness } from './readiness.ts'

/** So many answers are kept; those asked for in more characters than that are not. */
const ANSWERS = 4096
const MAX_QUESTION = 1024

interface StoredResponse {
  /** the catalog's, when it was given */
  version: number
  /** as it is registered */
  route: string
  status: number
  /** names and values in turn, as `writeHead` takes them */
  headers: string[]
  /** of its body; a 304 has none */
  key?: string
}

/** An answer with its body. */
export type CachedResponse = Pick<StoredResponse, 'route' | 'status' | 'headers'> & {
  body?: Buffer
}

export interface ResponseCacheOptions {
  catalog: Pick<Catalog, 'version'>
  bodies: Pick<Bodies, 'held'>
  readiness: Pick<Readiness, 'stopping'>
  settings: Pick<Config, 'read' | 'rateLimit' | 'trustProxy'>
}

export class ResponseCache {
  readonly #catalog: ResponseCacheOptions['catalog']
  readonly #bodies: ResponseCacheOptions['bodies']
  readonly #readiness: ResponseCacheOptions['readiness']
  /** whether who asks does not matter */
  readonly #open: boolean
  readonly #answers = new LRUCache<string, StoredResponse>({ max: ANSWERS })

  constructor({ catalog, bodies, readiness, settings }: ResponseCacheOptions) {
    this.#catalog = catalog
    this.#bodies = bodies
    this.#readiness = readiness
    const { read, rateLimit, trustProxy } = settings
    this.#open = read === 'anonymous' && rateLimit === 0 && trustProxy.length === 0
  }

  /** The answer that the same question had, if it is good for this one. */
  find(request: IncomingMessage): CachedResponse | undefined {
    if (!this.#open || this.#readiness.stopping) return undefined
    const answer = this.#answers.get(cacheKey(request))
    if (answer?.version !== this.#catalog.version) return undefined
    const { route, status, headers, key } = answer
    if (key === undefined) return { route, status, headers }
    const body = this.#bodies.held(key)
    return body && { route, status, headers, body }
  }

  /** Keeps an answer that was sent: 304, or 200 with the body of that key. */
  set({ raw, routeOptions }: FastifyRequest, reply: FastifyReply, key: string): void {
    if (!this.#open) return
    const { statusCode: status } = reply
    const question = cacheKey(raw)
    if (question === '' || question.length > MAX_QUESTION) return
    if (status !== 200 && status !== 304) return
    const headers = Object.entries(reply.getHeaders())
      .filter(([name]) => name !== 'connection') // that is about this one client
      .flatMap(([name, value]) => [name, String(value)])
    const { version } = this.#catalog
    const route = routeOptions.url ?? ''
    this.#answers.set(question, { version, route, status, headers, ...(status === 200 && { key }) })
  }
}

/** All of a request that its answer depends on; empty where that is more. */
function cacheKey({ method, url, headers }: IncomingMessage): string {
  if (method !== 'GET' || headers.range !== undefined || headers.authorization !== undefined)
    return ''
  return `${url}\n${headers['accept-encoding'] ?? ''}\n${headers['if-none-match'] ?? ''}`
}
