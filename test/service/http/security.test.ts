// Guards of every route: security headers, limits, and what counts as one client.
import t from 'tap'
import { SECURITY_HEADERS } from '../../../service/http/security.ts'
import { ask, sendRaw, startTestService } from '../../helpers/test-service.ts'

t.test('every response carries the headers that keep browsers in check', async (t) => {
  const pinned = {
    'content-security-policy': "default-src 'none';frame-ancestors 'none'",
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'SAMEORIGIN',
  }
  t.same(SECURITY_HEADERS, pinned)
  const { url } = await startTestService(t)
  const unknown = ['/nothing', '/docs/%3Cscript%3E', '/healthz']
  for (const path of ['/v1/kernels', '/v1/btf/a/b/c/d', '/openapi.json', ...unknown])
    t.match((await ask(`${url}${path}`)).headers, pinned, path)
  const page = await ask(`${url}/docs/`)
  t.equal(page.status, 200)
  t.match(
    page.headers['content-security-policy'],
    /script-src 'self'/,
    'the page may run its own scripts',
  )
})

t.test('URLs and headers over their limits are refused', async (t) => {
  const settings = { urlLimit: 300, headerLimit: 2048, bodyLimit: 100 }
  const { url } = await startTestService(t, undefined, { settings })
  const long = await ask(`${url}/v1/kernels?cursor=${'a'.repeat(300)}`)
  t.equal(long.status, 414)
  t.equal(long.json?.code, 'uri_too_long')
  const raw = await sendRaw(
    url,
    `GET /healthz HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(3000)}\r\n\r\n`,
  )
  t.match(raw, /^HTTP\/1\.1 431 /)
})

t.test('a client over the rate limit gets 429, other clients do not', async (t) => {
  const settings = { rateLimit: 5, trustProxy: ['127.0.0.1'] }
  const { url } = await startTestService(t, undefined, { settings })
  const from = (address: string) => ask(`${url}/v1/kernels`, { 'x-forwarded-for': address })
  for (let i = 0; i < 5; i++) t.equal((await from('192.0.2.1')).status, 200)
  const { status, headers, json } = await from('192.0.2.1')
  t.equal(status, 429)
  t.equal(json?.code, 'rate_limited')
  t.ok(Number(headers['retry-after']) > 0)
  t.equal((await from('192.0.2.2')).status, 200)
  for (let i = 0; i < 5; i++) t.equal((await from(`2001:db8::${i}`)).status, 200)
  t.equal((await from('2001:db8::ffff')).status, 429, 'an IPv6 /64 is one client')
  t.equal((await from('2001:db8:0:1::')).status, 200)
  for (let i = 0; i < 20; i++) t.equal((await ask(`${url}/healthz`)).status, 200)
})

t.test('X-Forwarded-For is trusted only from configured proxies', async (t) => {
  const { url } = await startTestService(t, undefined, { settings: { rateLimit: 5 } })
  const statuses: number[] = []
  for (let i = 0; i < 6; i++)
    statuses.push((await ask(`${url}/v1/kernels`, { 'x-forwarded-for': `192.0.2.${i}` })).status)
  t.same(statuses, [200, 200, 200, 200, 200, 429])
})
