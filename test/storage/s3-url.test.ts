// What the URL of an S3 store says, as a server sees it, and what is no such URL.
import t, { type Test } from 'tap'
import { openStore } from '../../storage/index.ts'
import { told } from '../helpers/store-contract.ts'
import { type Server, startServer } from '../helpers/test-server.ts'

process.env.AWS_ACCESS_KEY_ID = 'someone'
process.env.AWS_SECRET_ACCESS_KEY = 'a-secret'
process.env.AWS_EC2_METADATA_DISABLED = 'true'

/** What a server is asked for `key` by a store with this prefix and these parameters. */
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

t.test('bucket and prefix stand before the key', async (t) => {
  const paths = {
    '': '/btf/a/key',
    '/': '/btf/a/key',
    '/one': '/btf/one/a/key',
    '/one/two%3A2/': '/btf/one/two%253A2/a/key', // as in keys, the percent sign is its own
    '/one two': '/btf/one%2520two/a/key',
  }
  for (const [prefix, path] of Object.entries(paths))
    t.equal((await ask(t, prefix)).url?.replace(/\?.*/, ''), path, prefix)
})

t.test('the region is the URL’s, else the environment’s, else the first there was', async (t) => {
  t.equal(regionOf(await ask(t, '')), 'us-east-1')
  process.env.AWS_REGION = 'eu-central-1'
  t.teardown(() => delete process.env.AWS_REGION)
  t.equal(regionOf(await ask(t, '')), 'eu-central-1')
  t.equal(regionOf(await ask(t, '', '&region=garage')), 'garage')
})

t.test('what is signed is the key’s, never the secret', async (t) => {
  const { headers } = await ask(t, '')
  t.match(headers.authorization, /^AWS4-HMAC-SHA256 Credential=someone/)
  t.notMatch(JSON.stringify(headers), /a-secret/)
})

t.test('its URL opens a store again', async (t) => {
  const url = 's3://btf/one?endpoint=https://s3.example&region=here&path-style=false&timeout=2.5'
  const store = await openStore(url)
  t.equal(store.url, url)
  t.equal((await openStore(store.url)).url, url)
})

t.test('what is no such URL is refused, and not repeated', async (t) => {
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
    await t.rejects(openStore(url), { ...told('unsupported'), message: /^(?!.*hunter2)/s }, url)
})

t.test('who has no credentials is not permitted', async (t) => {
  const kept = { ...process.env }
  for (const name of Object.keys(kept)) if (name.startsWith('AWS_')) delete process.env[name]
  Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: 'true', HOME: t.testdir({}) })
  t.teardown(() => Object.assign(process.env, kept))
  const store = await openStore('s3://btf?endpoint=http://127.0.0.1:1')
  await t.rejects(store.get('key'), told('not_permitted'))
  await t.rejects(store.put('key', Buffer.from('x')), told('not_permitted'))
})
