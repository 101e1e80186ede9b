// Tests S3 store URLs: the requests that they cause, and the URLs that are rejected.
import t, { type Test } from 'tap'
import { openStore } from '../../storage/index.ts'
import { storeError } from '../helpers/store-contract.ts'
import { type Server, startServer } from '../helpers/test-server.ts'

process.env.AWS_ACCESS_KEY_ID = 'someone'
process.env.AWS_SECRET_ACCESS_KEY = 'a-secret'
process.env.AWS_EC2_METADATA_DISABLED = 'true'

/** The request that a server gets for `a/key` from a store with this prefix and these parameters. */
async function ask(t: Test, prefix: string, parameters = ''): Promise<Server['requests'][number]> {
  const server = await startServer(t, (request, response) => {
    request.resume().on('end', () => response.writeHead(204).end())
  })
  const store = await openStore(`s3://btf${prefix}?endpoint=${server.url}${parameters}`)
  await store.delete('a/key')
  return server.requests[0]!
}

const regionOf = ({ headers }: Server['requests'][number]): string | undefined =>
  /Credential=someone\/\d+\/([^/]+)\/s3\//.exec(headers.authorization ?? '')?.[1]

t.test('a request has bucket and prefix before the key', async (t) => {
  const paths = {
    '': '/btf/a/key',
    '/': '/btf/a/key',
    '/one': '/btf/one/a/key',
    '/one/two%3A2/': '/btf/one/two%253A2/a/key', // a percent sign is encoded again, as in keys
    '/one two': '/btf/one%2520two/a/key',
  }
  for (const [prefix, path] of Object.entries(paths))
    t.equal((await ask(t, prefix)).url?.replace(/\?.*/, ''), path, prefix)
})

t.test('the region comes from the URL, then from the environment, then is us-east-1', async (t) => {
  t.equal(regionOf(await ask(t, '')), 'us-east-1')
  process.env.AWS_REGION = 'eu-central-1'
  t.teardown(() => delete process.env.AWS_REGION)
  t.equal(regionOf(await ask(t, '')), 'eu-central-1')
  t.equal(regionOf(await ask(t, '', '&region=garage')), 'garage')
})

t.test('a signed request names the access key and never contains the secret', async (t) => {
  const { headers } = await ask(t, '')
  t.match(headers.authorization, /^AWS4-HMAC-SHA256 Credential=someone/)
  t.notMatch(JSON.stringify(headers), /a-secret/)
})

t.test('the URL of an open store opens it again', async (t) => {
  const url = 's3://btf/one?endpoint=https://s3.example&region=here&path-style=false&timeout=2.5'
  const store = await openStore(url)
  t.equal(store.url, url)
  t.equal((await openStore(store.url)).url, url)
})

t.test('openStore rejects an invalid S3 URL, and the error repeats no secret', async (t) => {
  const urls = [
    ...['s3:', 's3:btf', 's3:/btf', 's3://', 's3:///one', 's3://b', 's3://b tf/', 's3://btf:80/'],
    ...['s3://key:hunter2@btf/', 's3://hunter2@btf/', 's3://btf/#hunter2', 's3://bücket/'],
    ...['s3://btf/a//b', 's3://btf/.hidden', 's3://btf/a%2fb', 's3://btf/a:b'],
    ...['s3://btf?secret=hunter2', 's3://btf?Endpoint=http://a', 's3://btf?constructor=1'],
    ...['s3://btf?endpoint=', 's3://btf?endpoint=host', 's3://btf?endpoint=ftp://host'],
    ...['s3://btf?endpoint=http://:80', 's3://btf?endpoint=http://host:99999'],
    ...['s3://btf?endpoint=http://key:hunter2@host', 's3://btf?endpoint=http://host?hunter2'],
    ...['s3://btf?path-style=yes', 's3://btf?region=a/b', 's3://btf?timeout=-1'],
    ...['s3://btf?timeout=1e9', 's3://btf?timeout=0', 's3://btf?region=a&region=b'],
  ]
  for (const url of urls)
    await t.rejects(
      openStore(url),
      { ...storeError('unsupported'), message: /^(?!.*hunter2)/s },
      url,
    )
})

t.test('a store without credentials gives not_permitted', async (t) => {
  const kept = { ...process.env }
  for (const name of Object.keys(kept)) if (name.startsWith('AWS_')) delete process.env[name]
  Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: 'true', HOME: t.testdir({}) })
  t.teardown(() => Object.assign(process.env, kept))
  const store = await openStore('s3://btf?endpoint=http://127.0.0.1:1')
  await t.rejects(store.get('key'), storeError('not_permitted'))
  await t.rejects(store.put('key', Buffer.from('x')), storeError('not_permitted'))
})
