/* The client of a request: its key for limits, whether it is on this machine, its rights, and when it disconnects. */
import { isIPv6 } from 'node:net'
import rateLimit from '@fastify/rate-limit'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isLocal, parseListen } from '../address.ts'
import type { Config } from '../config.ts'
import { mayDo } from './auth.ts'

/** Headers that proxies add, trusted or not. */
const FORWARDED = ['forwarded', 'x-forwarded-for', 'x-real-ip', 'via']

/** The key that limits count a client under: its token's name or its IP; for IPv6 its /64, which one client owns. */
export function callerOf({ holder, ip }: FastifyRequest): string {
  if (holder) return `token ${holder.name}`
  if (!ip) return 'unix'
  return isIPv6(ip) ? rateLimit.normalizeIP(ip) : ip
}

/** Whether a request comes from this machine and not through a proxy. */
export function isLocalCaller({ ip, headers }: FastifyRequest): boolean {
  if (FORWARDED.some((name) => headers[name] !== undefined)) return false
  return !ip || /^(?:::ffff:)?127\.|^::1$/.test(ip)
}

/** Whether a request may start a generation: with the scope `generate`, or as `generateAnonymous` allows. */
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
