/*
 * Tests responses that Ceph does not give, but other S3 servers do, and responses of servers that are not S3:
 * conditions on completed uploads, other error names, endless listings.
 */
import type { RequestListener } from 'node:http'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { openStore, type Store, type StoreErrorCode } from '../../storage/index.ts'
import { keysOf, storeError } from '../helpers/store-contract.ts'
import { type Server, startServer } from '../helpers/test-server.ts'

const MIB = 1024 * 1024
const DAY = 24 * 3600 * 1000

process.env.AWS_ACCESS_KEY_ID = 'someone'
process.env.AWS_SECRET_ACCESS_KEY = 'a-secret'

/** Opens a store on a server that gives this response to every request. */
async function openOn(t: Test, answer: RequestListener): Promise<{ store: Store; server: Server }> {
  const server = await startServer(t, (request, response) => {
    request.resume().on('end', () => answer(request, response))
  })
  return { store: await openStore(`s3://btf/some?endpoint=${server.url}&timeout=5`), server }
}

const refusal =
  (status: number, code: string): RequestListener =>
  (request, response) => {
    response.writeHead(status, { 'content-type': 'application/xml' })
    response.end(request.method === 'HEAD' ? '' : `<Error><Code>${code}</Code></Error>`)
  }

const page: RequestListener = (_, response) => {
  response.writeHead(200, { 'content-type': 'text/html' })
  response.end('<html><head><title>Welcome</title></head><body>to this network</body></html>')
}

type Use = (store: Store) => Promise<unknown>

const USES: Record<string, Use> = {
  get: (store) => store.get('key'),
  head: (store) => store.head('key'),
  list: (store) => keysOf(store, ''),
  delete: (store) => store.delete('key'),
  put: (store) => store.put('key', Buffer.from('x')),
  'put ifAbsent': (store) => store.put('key', Buffer.from('x'), { ifAbsent: true }),
  'put ifMatch': (store) => store.put('key', Buffer.from('x'), { ifMatch: 'tag' }),
}

/** The expected code of some methods if the server gives this response to every request. */
const ANSWERS: Record<string, [RequestListener, StoreErrorCode, (keyof typeof USES)[]]> = {
  'a page of another server': [page, 'unreachable', ['get', 'head', 'list', 'put']],
  'status 404 without a code': [
    refusal(404, ''),
    'unreachable',
    ['get', 'head', 'list', 'put', 'delete'],
  ],
  'no such bucket': [refusal(404, 'NoSuchBucket'), 'unreachable', Object.keys(USES)],
  'an expired token': [refusal(400, 'ExpiredToken'), 'not_permitted', Object.keys(USES)],
  'a wrong clock': [refusal(403, 'RequestTimeTooSkewed'), 'not_permitted', Object.keys(USES)],
  'a wrong region': [
    refusal(400, 'AuthorizationHeaderMalformed'),
    'not_permitted',
    Object.keys(USES),
  ],
  'a full quota': [refusal(403, 'QuotaExceeded'), 'no_space', ['put']],
  'a full disk': [refusal(507, 'XMinioStorageFull'), 'no_space', ['put']],
  'If-Match over nothing': [refusal(404, 'NoSuchKey'), 'precondition_failed', ['put ifMatch']],
  'a conflict of writers': [
    refusal(409, 'ConditionalRequestConflict'),
    'precondition_failed',
    ['put ifAbsent', 'put ifMatch'],
  ],
  'unknown conditions': [refusal(501, 'NotImplemented'), 'unsupported', ['put ifAbsent']],
}

for (const [name, [answer, code, uses]] of Object.entries(ANSWERS)) {
  t.test(`the store maps this response to ${code}: ${name}`, async (t) => {
    const { store } = await openOn(t, answer)
    for (const use of uses) {
      const error = await USES[use]!(store).then(
        () => undefined,
        (error) => error,
      )
      t.match(error, storeError(code), use)
      t.notMatch(`${error?.message}`, /a-secret/)
    }
  })
}

const xml = (name: string, ...content: string[]): string =>
  `<?xml version="1.0"?><${name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${content.join('')}</${name}>`

const element = (name: string, content: string | number): string => `<${name}>${content}</${name}>`

const KEPT = { etag: '"tag"', 'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT' }

/** A server with multipart uploads like those of AWS, which checks conditions on completion. */
const partsServer =
  (complete: RequestListener, abandoned = ''): RequestListener =>
  (request, response) => {
    const { searchParams } = new URL(request.url ?? '', 'http://s3')
    const asked = `${request.method} ${searchParams.has('uploads') ? 'uploads' : searchParams.has('uploadId') ? 'upload' : 'object'}`
    const answers: Record<string, RequestListener> = {
      'POST uploads': (_, response) =>
        response.end(xml('InitiateMultipartUploadResult', element('UploadId', 'one'))),
      'PUT upload': (_, response) => response.writeHead(200, { etag: '"part"' }).end(),
      'POST upload': complete,
      'DELETE upload': (_, response) => response.writeHead(204).end(),
      'GET uploads': (_, response) =>
        response.end(xml('ListMultipartUploadsResult', element('Bucket', 'btf'), abandoned)),
    }
    const answer = answers[asked] ?? refusal(404, 'NoSuchKey')
    answer(request, response)
  }

const requestsOf = ({ requests }: Server): string[] =>
  requests.map(({ method, url }) => `${method} ${url?.replace(/^[^?]*\?/, '')}`)

t.test(
  'a conditional put in parts sends its condition on completion and removes the parts on failure',
  async (t) => {
    for (const options of [{ ifAbsent: true }, { ifMatch: 'tag' }]) {
      const { store, server } = await openOn(t, partsServer(refusal(412, 'PreconditionFailed')))
      const put = store.put('key', Buffer.alloc(33 * MIB), options)
      await t.rejects(put, storeError('precondition_failed'))
      const completing = server.requests.find(
        ({ method, url }) => method === 'POST' && url?.includes('uploadId'),
      )
      t.match(
        completing?.headers,
        options.ifAbsent ? { 'if-none-match': '*' } : { 'if-match': 'tag' },
      )
      t.match(requestsOf(server).at(-1), /^DELETE uploadId=one/, 'the parts are removed')
    }
  },
)

t.test('an upload whose completion answers 200 with an error fails with unreachable', async (t) => {
  const failing: RequestListener = (_, response) =>
    response.end(`<?xml version="1.0"?><Error>${element('Code', 'InternalError')}</Error>`)
  for (const complete of [failing, page]) {
    const { store, server } = await openOn(t, partsServer(complete))
    await t.rejects(
      store.put('key', Readable.from([Buffer.alloc(6 * MIB)])),
      storeError('unreachable'),
    )
    if (complete === failing)
      t.ok(requestsOf(server).some((asked) => /^DELETE uploadId/.test(asked)))
  }
})

t.test('a multipart put removes parts of killed writers that are a day old, once', async (t) => {
  const upload = (id: string, age: number) =>
    element(
      'Upload',
      element('Key', `some/${id}`) +
        element('UploadId', id) +
        element('Initiated', new Date(Date.now() - age).toISOString()),
    )
  const done: RequestListener = (_, response) =>
    response.end(xml('CompleteMultipartUploadResult', element('ETag', '"whole"')))
  const abandoned = upload('old', 2 * DAY) + upload('new', DAY / 2)
  const { store, server } = await openOn(t, partsServer(done, abandoned))
  t.match(await store.put('key', Buffer.alloc(6 * MIB)), { size: 6 * MIB, etag: 'whole' })
  await store.put('key', Buffer.alloc(6 * MIB))
  const removed = requestsOf(server).filter((asked) => asked.startsWith('DELETE'))
  t.match(removed, [/uploadId=old/])
  t.equal(removed.length, 1, 'recent parts stay, and a second put removes nothing')
})

t.test('list rejects a listing that is not in byte order or never ends', async (t) => {
  const listing =
    (...keys: string[]): RequestListener =>
    (_, response) => {
      const contents = keys.map((key) =>
        element(
          'Contents',
          element('Key', key) +
            element('ETag', 'x') +
            element('Size', 1) +
            element('LastModified', '2026-01-01T00:00:00.000Z'),
        ),
      )
      const more = element('IsTruncated', 'true') + element('NextContinuationToken', 'again')
      response.end(xml('ListBucketResult', element('Name', 'btf'), ...contents, more))
    }
  for (const keys of [['some/b', 'some/a'], ['some/a']]) {
    const { store } = await openOn(t, listing(...keys))
    await t.rejects(keysOf(store, ''), storeError('unreachable'), keys.join(', '))
  }
})

t.test('get rejects a response that does not have the requested range', async (t) => {
  const answer: RequestListener = (_, response) => {
    response.writeHead(200, { ...KEPT, 'content-length': 10 }).end('0123456789')
  }
  const { store } = await openOn(t, answer)
  t.equal((await buffer((await store.get('key')).body)).toString(), '0123456789')
  await t.rejects(store.get('key', { start: 3 }), storeError('unreachable'))
})

t.test(
  'a resumed read fails if the object was replaced, and never mixes two objects',
  async (t) => {
    let asked = 0
    const { store } = await openOn(t, (request, response) => {
      if (asked++ > 0) return refusal(412, 'PreconditionFailed')(request, response)
      response.writeHead(200, { ...KEPT, 'content-length': 10 })
      response.write('01234', () => setTimeout(() => response.destroy(), 10))
    })
    const { body } = await store.get('key')
    await t.rejects(buffer(body), storeError('unreachable'))
  },
)
