// The client of a request: whether it counts as local.
import type { FastifyRequest } from 'fastify'
import t from 'tap'
import { DEFAULTS } from '../../../service/config.ts'
import { mayGenerate } from '../../../service/http/requester.ts'

const HOST = '127.0.0.1:8080'
const LOCAL = { ...DEFAULTS, generateAnonymous: 'local' as const, listen: HOST }

/** Tells whether a request without a token may start a generation on a service that listens on localhost. */
const may = (headers: Record<string, string>, ip = '127.0.0.1') =>
  mayGenerate({ ip, headers, holder: undefined } as unknown as FastifyRequest, LOCAL)

t.test("programs and the service's own pages on this machine may start a generation", async (t) => {
  for (const host of [HOST, 'localhost', 'LOCALHOST:8080', '[::1]:8080', '127.0.0.2'])
    t.ok(may({ host }), host)
  t.ok(may({ host: '[::1]:8080' }, '::1'))
  t.ok(may({ host: HOST }, '::ffff:127.0.0.1'))
  t.ok(may({ host: 'any' }, ''), 'a unix socket has no address, and its clients send any Host')
  for (const site of ['same-origin', 'none'])
    t.ok(may({ host: HOST, 'sec-fetch-site': site }), site)
  t.ok(may({ host: HOST, origin: `http://${HOST}`, 'sec-fetch-site': 'same-origin' }))
})

t.test('a web page of another origin cannot start a generation on localhost', async (t) => {
  for (const site of ['cross-site', 'same-site', 'CROSS-SITE', ''])
    t.notOk(may({ host: HOST, 'sec-fetch-site': site }), `Sec-Fetch-Site: ${site}`)
  for (const origin of [
    'https://evil.example',
    'null',
    '',
    'http://127.0.0.1:3000',
    `http://${HOST}.evil.example`,
  ]) {
    t.notOk(may({ host: HOST, origin }), `Origin: ${origin}`)
    t.notOk(may({ host: HOST, origin }, ''), `over a unix socket, Origin: ${origin}`)
  }
  for (const host of [
    'evil.example',
    'evil.example:8080',
    '127.0.0.1.evil.example',
    'localhost.evil',
    '',
  ])
    t.notOk(may({ host, origin: `http://${host}` }), `a name that was rebound: ${host}`)
  t.notOk(may({}), 'without Host')
  t.notOk(may({ host: HOST }, '192.0.2.1'), 'another machine')
})
