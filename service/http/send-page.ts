/*
 * Pages for people: HTML, or what the page shows as JSON for clients that prefer it. Names in a page come from packages
 * and from strangers. Templates escape them, and the policy of the response forbids inline scripts and requests to other
 * hosts, so a name that slips through still runs nothing.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { sha256Of } from '../../storage/index.ts'
import { encode, SHORT } from '../cache/btf-bodies.ts'
import type { ServiceError } from '../error.ts'
import { type Page, renderPage } from '../page/render.ts'
import { baseOf } from '../page/url.ts'
import { STATUS, sendProblem, toServiceError } from './problem.ts'
import { negotiate, sendBytes } from './send.ts'

/** Only files of this service: its style sheet, its script, its pictures; forms go to this service. */
const PAGE_POLICY = [
  "default-src 'none'",
  "style-src 'self'",
  "script-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join(';')

const HTML = 'text/html; charset=utf-8'
const JSON_TYPE = 'application/json; charset=utf-8'

/** `Cache-Control` of pages that show the state of this moment. */
export const UNCACHED = 'no-store'

/** Bodies below this size are sent as they are. */
const MIN_ENCODED = 1024

/**
 * Sends a page as the Accept header asks, with an ETag of its bytes. `cacheControl` is that of a page whose content may be
 * a minute old.
 */
export async function sendPage(
  request: FastifyRequest,
  reply: FastifyReply,
  page: Page,
  { cacheControl = SHORT, status = 200 }: { cacheControl?: string; status?: number } = {},
): Promise<FastifyReply> {
  const json = prefersJson(request.headers.accept)
  const text = json ? `${JSON.stringify(page.view)}\n` : renderPage(page, baseFor(request))
  const raw = Buffer.from(text)
  const encoding =
    raw.length < MIN_ENCODED ? 'identity' : negotiate(request.headers['accept-encoding'])
  const headers: Record<string, string> = {
    'content-security-policy': PAGE_POLICY,
    vary: 'accept, accept-encoding',
    ...(encoding !== 'identity' && { 'content-encoding': encoding }),
  }
  const bytes = encoding === 'identity' ? raw : await encode(raw, encoding)
  const type = json ? JSON_TYPE : HTML
  if (status !== 200)
    return reply
      .code(status)
      .headers(headers)
      .header('cache-control', UNCACHED)
      .type(type)
      .send(bytes)
  if (cacheControl === UNCACHED)
    return reply.headers(headers).header('cache-control', UNCACHED).type(type).send(bytes)
  const etag = `"${sha256Of(raw).slice(0, 32)}-${encoding}"`
  delete request.headers.range // a part of a page is of no use
  return sendBytes(request, reply, bytes, { etag, cacheControl, type, headers })
}

/** The address under which the client knows this service. */
export const baseFor = ({ protocol, host }: FastifyRequest): string => baseOf(protocol, host)

/** Tells whether a client prefers JSON to HTML (RFC 9110, 12.5.1); one that takes anything gets HTML. */
export function prefersJson(accept = ''): boolean {
  let [json, html] = [0, 0]
  for (const part of accept.toLowerCase().slice(0, 1024).split(',')) {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim())
    const quality = parameters.find((text) => text.startsWith('q='))
    const weight = quality === undefined ? 1 : Number(quality.slice(2)) || 0
    if (type === 'application/json') json = Math.max(json, weight)
    if (type === 'text/html' || type === 'application/xhtml+xml') html = Math.max(html, weight)
  }
  return json > html
}

/** Tells whether a client is a browser, or another that asks for HTML by its name. */
const asksForHtml = (accept = ''): boolean => /\btext\/html\b/i.test(accept.slice(0, 1024))

const HEADINGS: Partial<Record<ServiceError['code'], string>> = {
  unknown_kernel: 'There is no such kernel',
  unknown_blob: 'There is no such BTF',
  unknown_type: 'There is no such type or function',
  not_found: 'There is no such page',
  invalid_request: 'The request is not valid',
  invalid_name: 'The name is not valid',
  invalid_object: 'This is not a BPF object',
  unauthorized: 'A token is needed',
  forbidden: 'The token may not do this',
  busy: 'The service is busy',
  unavailable: 'The service is not ready',
  rate_limited: 'Too many requests',
  too_complex: 'This takes too long',
}

/** The error handler of pages: a page for browsers, a problem document for everyone else. */
export async function sendErrorPage(
  error: Parameters<typeof toServiceError>[0],
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const problem = toServiceError(error)
  const status = STATUS[problem.code]
  if (status >= 500) request.log.error(error)
  reply.header('x-request-id', request.id)
  if (!asksForHtml(request.headers.accept)) return sendProblem(reply, problem)
  if (problem.code === 'busy' || problem.code === 'unavailable') reply.header('retry-after', 5)
  const { code, message, details } = problem
  const links = (details.links ?? []) as { href: string; text: string }[]
  return await sendPage(
    request,
    reply,
    {
      template: 'error',
      title: HEADINGS[code] ?? 'This did not work',
      description: message,
      path: '/',
      unlisted: true,
      view: {
        heading: HEADINGS[code] ?? 'This did not work',
        detail: `${message.slice(0, 1).toUpperCase()}${message.slice(1)}.`,
        ...{ status, code, links },
      },
    },
    { status },
  )
}
