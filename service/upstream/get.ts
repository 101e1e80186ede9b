/*
 * GET requests to upstreams. Only addresses that the operator named are asked, and those that they redirect to, three
 * times at most. A redirect does not leave TLS, takes no credentials to another host, and leads into a private network only
 * from there. Bytes and time are bounded.
 */
import { type LookupAddress, lookup } from 'node:dns'
import { type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { BlockList, isIP, type LookupFunction } from 'node:net'
import { withoutCredentials } from '../../storage/index.ts'
import { agentFor } from '../client/proxy-agent.ts'
import { UpstreamError } from './error.ts'

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
const MAX_REDIRECTS = 3
/** Milliseconds without a byte. */
const SILENCE = 15_000
/** Bytes of an answer with another status than 200, which are read to keep the connection. */
const MAX_PROBLEM = 64 * 1024
/** Seconds: the longest `Retry-After` that is obeyed. */
const MAX_RETRY_AFTER = 300

export interface UpstreamAnswer {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
}

export interface GetOptions {
  signal: AbortSignal
  /** bytes of the body */
  limit: number
  headers?: Readonly<Record<string, string>>
  /** the value of the header `authorization`; it is sent to the first host alone */
  authorization?: string | undefined
  /** milliseconds without a byte (default: 15 000) */
  silence?: number
}

/**
 * Requests a URL. Errors: `unreachable` (also for a status of 429 and from 500 on), `timeout`, `too_large`,
 * `invalid_response` for redirects; the signal's reason as `timeout`.
 */
export async function getFrom(first: URL, options: GetOptions): Promise<UpstreamAnswer> {
  let url = first
  let fromInner = false
  let told: IncomingHttpHeaders = {}
  for (let redirects = 0; ; redirects++) {
    const response = await open(url, first, { ...options, fromInner })
    const { statusCode: status = 0, headers } = response
    const { location } = headers
    if (!REDIRECTS.has(status) || location === undefined) {
      const answer = await read(url, response, options)
      return { ...answer, headers: { ...answer.headers, ...told } }
    }
    if (redirects === 0) {
      fromInner = isInner(response.socket?.remoteAddress ?? '')
      told = toldBy(headers)
    }
    response.destroy()
    url = redirected(url, location, redirects)
    if (isIP(hostOf(url)) > 0 && !fromInner && isInner(hostOf(url))) throw inward(url)
  }
}

/** What a btfmill tells of BTF when it redirects to its bucket, which knows nothing of that. */
function toldBy(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const isTold = ([name]: [string, unknown]) => name === 'etag' || name.startsWith('btfmill-')
  return Object.fromEntries(Object.entries(headers).filter(isTold))
}

function redirected(from: URL, location: string, redirects: number): URL {
  const to = URL.parse(location, from.href)
  const refuse = (why: string) => new UpstreamError('invalid_response', `${from.origin} ${why}`)
  if (redirects >= MAX_REDIRECTS) throw refuse(`redirects more than ${MAX_REDIRECTS} times`)
  if (!to || !/^https?:$/.test(to.protocol)) throw refuse('redirects to no http: or https: address')
  if (from.protocol === 'https:' && to.protocol !== 'https:') throw refuse('redirects to http:')
  to.username = ''
  to.password = ''
  return to
}

/** Addresses of this machine and of private networks (RFC 1918, 3927, 4193, 4291, 6598). */
const INNER = new BlockList()
for (const [net, prefix] of [
  ...[['0.0.0.0', 8] as const, ['10.0.0.0', 8] as const, ['100.64.0.0', 10] as const],
  ...[['127.0.0.0', 8] as const, ['169.254.0.0', 16] as const, ['172.16.0.0', 12] as const],
  ['192.168.0.0', 16] as const,
])
  INNER.addSubnet(net, prefix, 'ipv4')
for (const [net, prefix] of [['::', 127] as const, ['fc00::', 7] as const, ['fe80::', 10] as const])
  INNER.addSubnet(net, prefix, 'ipv6')

const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[|\]$/g, '')

function isInner(address: string): boolean {
  const family = isIP(address)
  return family > 0 && INNER.check(address, family === 6 ? 'ipv6' : 'ipv4')
}

const inward = ({ host }: URL): UpstreamError =>
  new UpstreamError('invalid_response', `a redirect leads into a private network: ${host}`)

/** Looks a name up, and refuses one in a private network. */
const outerLookup: LookupFunction = (hostname, options, done) => {
  lookup(hostname, { ...options, all: true }, (error, found: LookupAddress[]) => {
    const [one] = found ?? []
    const refused = error ?? (found.some(({ address }) => isInner(address)) ? REFUSED : null)
    if (refused || !one) return done(refused ?? REFUSED, '', 4)
    return options.all ? done(null, found) : done(null, one.address, one.family)
  })
}
const REFUSED = Object.assign(new Error('a redirect leads into a private network'), {
  code: 'EACCES',
})

async function open(
  url: URL,
  first: URL,
  {
    signal,
    headers = {},
    authorization,
    silence = SILENCE,
    fromInner,
  }: GetOptions & { fromInner: boolean },
): Promise<IncomingMessage> {
  const agent = await agentFor(url)
  const isFirst = url.origin === first.origin
  const options = {
    signal,
    timeout: silence,
    headers: {
      'accept-encoding': 'identity',
      ...headers,
      ...(authorization !== undefined && isFirst && { authorization }),
    },
    ...(agent && { agent }),
    ...(!isFirst && !fromInner && { lookup: outerLookup }),
  }
  const request = url.protocol === 'https:' ? requestHttps : requestHttp
  return await failing(
    url,
    signal,
    () =>
      new Promise((resolve, reject) => {
        const sent = request(url, options, resolve)
        sent.on('timeout', () => sent.destroy(new Silence(`no data for ${silence / 1000} s`)))
        sent.on('error', reject)
        sent.end()
      }),
  )
}

class Silence extends Error {}

async function read(
  url: URL,
  response: IncomingMessage,
  { signal, limit }: GetOptions,
): Promise<UpstreamAnswer> {
  const { statusCode: status = 0, headers } = response
  const most = status === 200 ? limit : MAX_PROBLEM
  const tooLarge = () =>
    new UpstreamError('too_large', `${url.origin} sends more than ${most} bytes`)
  if (Number(headers['content-length'] ?? 0) > most) {
    response.destroy()
    if (status === 200) throw tooLarge()
  }
  const body = await failing(url, signal, async () => {
    const pieces: Buffer[] = []
    let size = 0
    for await (const piece of response as AsyncIterable<Buffer>) {
      size += piece.length
      if (size > most) throw tooLarge()
      pieces.push(piece)
    }
    return Buffer.concat(pieces)
  }).catch((error) => {
    if (status === 200) throw error
    return Buffer.alloc(0)
  })
  if (status !== 429 && status < 500) return { status, headers, body }
  const retryAfter = Number(headers['retry-after'] ?? Number.NaN)
  throw new UpstreamError('unreachable', `${url.origin} answers ${status}`, {
    retryAfter: retryAfter >= 0 ? Math.min(retryAfter, MAX_RETRY_AFTER) : undefined,
  })
}

async function failing<T>(url: URL, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof UpstreamError) throw cause
    if (signal.aborted || cause instanceof Silence) {
      const why = cause instanceof Silence ? cause.message : 'no complete answer in time'
      throw new UpstreamError('timeout', `${url.origin}: ${why}`, { cause })
    }
    const { message, code = '' } = cause as NodeJS.ErrnoException
    const said = withoutCredentials(message || code)
    throw new UpstreamError('unreachable', `${url.origin}: ${said}`, { cause })
  }
}
