/* Who asks: what requests of one client are counted under. */
import { isIPv6 } from 'node:net'
import rateLimit from '@fastify/rate-limit'
import type { FastifyRequest } from 'fastify'

/** The name of the token, else the address, of IPv6 the network of 64 bits that one client has. */
export function callerOf({ holder, ip }: FastifyRequest): string {
  if (holder) return `token ${holder.name}`
  if (!ip) return 'unix'
  return isIPv6(ip) ? rateLimit.normalizeIP(ip) : ip
}
