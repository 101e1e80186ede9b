/* The client of a request: its key for limits, whether it is on this machine, its rights, and when it disconnects. */
import type { IncomingHttpHeaders } from 'node:http'
import { isIPv6 } from 'node:net'
import rateLimit from '@fastify/rate-limit'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isLocal, parseListen } from '../address.ts'
import type { Config } from '../config.ts'
import { mayDo } from './auth.ts'

/** Headers that proxies add, trusted or not. */
const FORWARDED = ['forwarded', 'x-forwarded-for', 'x-real-ip', 'via']

/** What a browser reports of a request by the user or by this service's own pages. */
const OWN_SITE = ['same-origin', 'none']

/** The Host header of a request to this machine. A page that rebinds its DNS name to 127.0.0.1 still sends that name. */
const LOCAL_HOST = /^(?:localhost|127\.[\d.]+|\[::1\])(?::\d+)?$/i

/** The key that limits count a client under: its token's name or its IP; for IPv6 its /64, which one client owns. */
export function callerOf({ holder, ip }: FastifyRequest): string {
  if (holder) return `token ${holder.name}`
  if (!ip) return 'unix'
  return isIPv6(ip) ? rateLimit.normalizeIP(ip) : ip
}

/** Tells whether a request comes from this machine, not through a proxy, and not from another site's page in a browser here. */
export function isLocalCaller({ ip, headers }: FastifyRequest): boolean {
  if (FORWARDED.some((name) => headers[name] !== undefined)) return false
  if (isCrossSite(headers)) return false
  if (!ip) return true // a unix socket: browsers cannot use one, and its clients send any Host
  return /^(?:::ffff:)?127\.|^::1$/.test(ip) && LOCAL_HOST.test(headers.host ?? '')
}

/** Tells whether a browser says that a page of another origin sent the request (Fetch Metadata; RFC 6454). */
function isCrossSite({ origin, host, 'sec-fetch-site': site }: IncomingHttpHeaders): boolean {
  if (site !== undefined && !OWN_SITE.includes(String(site))) return true
  return origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`
}

/** Tells whether a request may start a generation: with the scope `generate`, or as `generateAnonymous` allows. */
export function mayGenerate(
  request: FastifyRequest,
  { generateAnonymous, listen }: Pick<Config, 'generateAnonymous' | 'listen'>,
): boolean {
  const { holder } = request
  if (holder && mayDo(holder, 'generate')) return true
  if (generateAnonymous !== 'local') return generateAnonymous === 'always'
  const address = parseListen(listen)
  return address !== undefined && isLocal(address) && isLocalCaller(request)
}

/** A signal that aborts when the response is finished or the client disconnects. */
export function disconnectSignal(reply: FastifyReply): AbortSignal {
  const disconnected = new AbortController()
  const abort = () => disconnected.abort(new Error('the client disconnected'))
  if (reply.raw.destroyed) abort()
  else reply.raw.once('close', abort)
  return disconnected.signal
}
