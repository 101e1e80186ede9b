// What a command does with the answers of a server that lies: an error with a code, and bounded memory.
import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import t from 'tap'
import { sweepOn } from '../../../service/cli/sweep-on.ts'
import { RemoteServer } from '../../../service/client/remote.ts'
import { RemoteStore } from '../../../service/client/remote-store.ts'
import { Catalog, getBlob } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'
import { startServer } from '../../helpers/test-server.ts'
import { recordOf, startTestService } from '../../helpers/test-service.ts'

const objects = [{ name: 'a.o', bytes: readFileSync(coreObjects('el').get('task')!) }]
const ndjson = { 'content-type': 'application/x-ndjson' }
const line = (value: unknown) => `${JSON.stringify(value)}\n`
const sha256 = '0'.repeat(64)
/** Sends one body to every request. */
const sends =
  (body: string, headers: Record<string, string> = ndjson, status = 200): RequestListener =>
  (_, response) =>
    response.writeHead(status, headers).end(body)

const minimized = { sha256, size: 1, of: 1, btf: 'AAAA' }
const problem = { 'content-type': 'application/problem+json' }
const CHECK: Record<string, [RequestListener, string, string]> = {
  'an HTML page': [
    sends('<html>', { 'content-type': 'text/html' }),
    'invalid_response',
    'it has the media type text/html: expected application/x-ndjson',
  ],
  'an endless line': [
    (_, response) => {
      response.writeHead(200, ndjson)
      const send = () => {
        while (!response.destroyed && response.write('x'.repeat(65536)));
      }
      response.on('drain', send)
      send()
    },
    'invalid_response',
    'a line has more than 8388608 bytes',
  ],
  'lines that are not JSON': [sends('{"object"\n'), 'invalid_response', 'a line is not JSON'],
  'other lines': [sends(line({ a: 1 })), 'invalid_response', 'is not the result of a check'],
  'a result without a verdict': [
    sends(line({ object: 'a.o', kernel: 'k' })),
    'invalid_response',
    'a line has neither a verdict nor an error',
  ],
  'the result of another object': [
    sends(line({ object: 'b.o', kernel: 'k', error: { code: 'a', message: 'b' } })),
    'invalid_response',
    'its lines are not in the order of kernels and objects',
  ],
  'no lines': [sends(''), 'invalid_response', 'it has no lines'],
  'half a line': [sends('{}'), 'invalid_response', 'it ends in the middle of a line'],
  'a cut answer': [
    sends(line({ error: { code: 'too_large', message: 'cut: 3 are missing' }, missing: 3 })),
    'too_large',
    'cut: 3 are missing',
  ],
  'an answer that breaks off': [
    (_, response) => {
      response.writeHead(200, ndjson).write('{}')
      setTimeout(() => response.destroy(), 50)
    },
    'unreachable',
    'the answer ended early',
  ],
  'an answer that stalls': [
    (_, response) => void response.writeHead(200, ndjson).write('{}'),
    'unreachable',
    'the answer ended early',
  ],
  'a problem with control characters': [
    sends(JSON.stringify({ code: 'has_own_btf', detail: 'no\u001b[2J' }), problem, 404),
    'has_own_btf',
    'no?[2J',
  ],
  'a problem with a code of its own': [
    sends(JSON.stringify({ code: 'teapot', detail: 'short' }), problem, 418),
    'refused',
    'short',
  ],
  'a refusal of an object': [
    sends(
      JSON.stringify({ code: 'invalid_object', reason: 'invalid_elf', detail: 'object 1: x' }),
      problem,
      422,
    ),
    'invalid_elf',
    'object 1: x',
  ],
}
const MINIMIZE: typeof CHECK = {
  'BTF with another digest': [
    sends(line({ kernel: 'debian/12/x86_64/1', ...minimized })),
    'digest_mismatch',
    'debian/12/x86_64/1: the BTF has SHA-256',
  ],
  'a kernel whose name leaves the directory': [
    sends(line({ kernel: 'debian/12/../..', ...minimized })),
    'invalid_response',
    'invalid kernel',
  ],
}

for (const [name, lies] of Object.entries({ check: CHECK, minimize: MINIMIZE }))
  for (const [lie, [listener, code, message]] of Object.entries(lies))
    t.test(`a server that answers ${name} with ${lie} gives an error with a code`, async (t) => {
      const { url } = await startServer(t, listener)
      const server = new RemoteServer(url, { timeout: 2000 })
      const swept = sweepOn(server, name as 'check' | 'minimize', objects, {}, {})
      const error = await Array.fromAsync(swept).then(
        () => undefined,
        (error) => error,
      )
      t.equal(error?.code, code)
      t.match(error?.message, message)
    })

t.test('an answer that never ends is given up at the deadline', async (t) => {
  const { url } = await startServer(t, (_, response) => {
    response.writeHead(200, ndjson)
    const timer = setInterval(() => response.write(' '), 50)
    response.on('close', () => clearInterval(timer))
  })
  const server = new RemoteServer(url, { deadline: 1000 })
  await t.rejects(Array.fromAsync(sweepOn(server, 'check', objects, {}, {})), { code: 'timeout' })
})

t.test('the token goes to the server alone, not to where it redirects', async (t) => {
  const bucket = await startServer(t, (_, response) => response.end('x'))
  const server = await startServer(t, (_, response) =>
    response.writeHead(307, { location: bucket.url }).end(),
  )
  const remote = new RemoteServer(server.url, { token: 'secret' })
  await remote.request('v1/btf/sha256/x', {}, (bytes) => bytes)
  t.equal(server.requests[0]!.headers.authorization, 'Bearer secret')
  t.equal(bucket.requests[0]!.headers.authorization, undefined)
})

t.test('BTF with another digest than its record has is refused', async (t) => {
  const liar = await startServer(t, (request, response) => {
    if (request.url!.startsWith('/v1/kernels'))
      response.writeHead(200, ndjson).end(line(recordOf({}, { btf: INFO })))
    else response.writeHead(200).end(readFileSync(littleKernels().get('ppc')!))
  })
  const store = new RemoteStore(new RemoteServer(liar.url))
  const [entry] = [...(await Catalog.open(store)).list()]
  await t.rejects(getBlob(store, entry!.record.btf!.sha256), { code: 'digest_mismatch' })
  for (const listed of [{ kernel: 7 }, recordOf({}, { btf: { ...INFO, size: 2 ** 40 } })]) {
    const { url } = await startServer(t, sends(line(listed)))
    const opened = Catalog.open(new RemoteStore(new RemoteServer(url)))
    await t.rejects(opened, { code: 'invalid_response', message: /is not a kernel/ })
  }
})

const INFO = {
  ...{ sha256, size: 100, types: 1, kinds: ['INT'] },
  ...({ byteOrder: 'little', pointerSize: 8 } as const),
}

t.test('a store of a service has nothing that the service does not publish', async (t) => {
  const { url } = await startTestService(t)
  const store = new RemoteStore(new RemoteServer(url))
  await t.rejects(getBlob(store, sha256), { code: 'not_found' })
  await t.rejects(store.head('kernels/a/b/c/d/e.json'), { code: 'not_found' })
  t.same(await Array.fromAsync(store.list('sources/')), [])
  t.throws(() => store.put(), { code: 'unsupported' })
})

t.test('what a server sends is printed without control characters', async (t) => {
  const cut = { error: { code: 'too_large', message: 'cut\u001b[2J' }, missing: 3 }
  const { url } = await startServer(t, sends(line(cut)))
  const { status, stdout, stderr } = await run(
    'check',
    coreObjects('el').get('task')!,
    '--server',
    url,
  )
  t.same([status, stdout, stderr], [1, '', 'btfmill: too_large: cut?[2J\n'])
})
