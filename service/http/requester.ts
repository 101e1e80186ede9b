/* Who asks: what requests of one client are counted under, whether it is this machine, and whether it is still there. */
import { isIPv6 } from 'node:net'
import rateLimit from '@fastify/rate-limit'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isLocal, parseListen } from '../address.ts'
import type { Config } from '../config.ts'
import { mayDo } from './auth.ts'

/** What proxies add to what they pass on, whether they are trusted or not. */
const FORWARDED = ['forwarded', 'x-forwarded-for', 'x-real-ip', 'via']

/** The name of the token, else the address, of IPv6 the network of 64 bits that one client has. */
export function callerOf({ holder, ip }: FastifyRequest): string {
  if (holder) return `token ${holder.name}`
  if (!ip) return 'unix'
  return isIPv6(ip) ? rateLimit.normalizeIP(ip) : ip
}

/** Whether a request comes from this machine itself; never, where a proxy passed it on. */
export function isLocalCaller({ ip, headers }: FastifyRequest): boolean {
  if (FORWARDED.some((name) => headers[name] !== undefined)) return false
  return !ip || /^(?:::ffff:)?127\.|^::1$/.test(ip)
}

/** Whether a request may start a generation: by its token's scope, or without a token as `generateAnonymous` says. */
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

/** Aborts when the answer is out, or nobody is there any more to take it. */
export function disconnectSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  const leave = () => gone.abort(new Error('the client has gone'))
  if (reply.raw.destroyed) leave()
  else reply.raw.once('close', leave)
  return gone.signal
}
