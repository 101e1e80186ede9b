import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { GeneratorError } from '../../../generator/error.ts'
import { readFromMirrors } from '../../../generator/indexes/mirror-list.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'

const directory = mkdtempSync(join(tmpdir(), 'mirrors-'))
t.teardown(() => rmSync(directory, { recursive: true }))

let list = ''
const server = await startServer(t, (_, response) => void response.end(list))
const options = { cache: join(directory, 'cache'), retry: IMPATIENT }
const same = async (mirror: string) => mirror
const read = async (text: string) => {
  list = text
  return await readFromMirrors(
    { url: `${server.url}/mirror.list`, architecture: 'x86_64' },
    options,
    same,
  )
}

t.test('the first mirror of a list is used', async (t) => {
  const mirror = 'https://cdn.example/2/core/2.0/x86_64/4ea4'
  t.equal(await read(`${mirror}\nhttps://other.example/\n`), mirror)
  t.equal(await read(`\n# comment\r\n  ${mirror}/  \r\nnonsense`), mirror)
  t.equal(
    await read('http://plain.example/x'),
    'http://plain.example/x',
    'the list came over HTTP, too',
  )
})

t.test(
  'the next mirror is tried if one is not available, but not after other errors',
  async (t) => {
    list = ['https://a.example/', 'nonsense', 'https://b.example/', 'https://c.example/'].join('\n')
    const tried: string[] = []
    const from = (codes: Record<string, GeneratorError['code']>) =>
      readFromMirrors(
        { url: `${server.url}/mirror.list`, architecture: 'x86_64' },
        options,
        async (mirror) => {
          tried.push(mirror)
          const code = codes[mirror]
          if (code) throw new GeneratorError(code, mirror)
          return mirror
        },
      )
    const [a, b, c] = ['https://a.example', 'https://b.example', 'https://c.example'] as const
    t.equal(await from({ [a]: 'unreachable' }), b)
    t.equal(await from({ [a]: 'not_found_upstream', [b]: 'stalled' }), c)
    tried.length = 0
    await t.rejects(from({ [a]: 'invalid_signature' }), { code: 'invalid_signature' })
    t.same(tried, [a])
    await t.rejects(from({ [a]: 'not_found_upstream', [b]: 'invalid_signature' }), {
      code: 'invalid_signature',
    })
    await t.rejects(from({ [a]: 'not_found_upstream', [b]: 'stalled', [c]: 'truncated' }), {
      code: 'not_found_upstream',
    })
  },
)

t.test('a list whose first line is not a mirror is rejected', async (t) => {
  for (const text of [
    '',
    '\n\n# nothing\n',
    'file:///etc/',
    '/etc/passwd',
    '../x',
    'ftp://host.example/',
    'https://me:secret@host.example/',
    'https://host.example/?x=',
    'https://host.example/#x',
    'https://[',
    '<html><body>Hello</body></html>',
    '\0'.repeat(1000),
  ])
    await t.rejects(read(text), { code: 'invalid_index' }, JSON.stringify(text.slice(0, 30)))
  await t.rejects(read('#'.repeat(100_000)), { code: 'too_large' })
})

t.test('a list over TLS may name mirrors without TLS only if the source says so', async (t) => {
  const [certificate, key] = ['cert.pem', 'key.pem'].map((name) => join(directory, name))
  const subject = ['-subj', '/CN=list', '-addext', 'subjectAltName=IP:127.0.0.1']
  const files = ['-keyout', key!, '-out', certificate!]
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  execFileSync('openssl', [...args, '-nodes', ...subject, ...files], { stdio: 'pipe' })
  const tls = createServer(
    { cert: readFileSync(certificate!), key: readFileSync(key!) },
    (_, response) => void response.end('http://packages.example/2018.03/main/4ea4/$basearch\n'),
  )
  t.teardown(() => void tls.close())
  await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve))
  const url = `https://127.0.0.1:${(tls.address() as AddressInfo).port}/mirror.list`
  const trusting = { ...options, access: { authority: certificate! } }
  const list = { url, architecture: 'x86_64' }
  await t.rejects(readFromMirrors(list, trusting, same), { code: 'invalid_index' })
  t.equal(
    await readFromMirrors({ ...list, plain: true }, trusting, same),
    'http://packages.example/2018.03/main/4ea4/x86_64',
    "and yum's $basearch is the architecture",
  )
})

t.test('a list in a local file may name local mirrors only', async (t) => {
  const path = join(directory, 'mirror.list')
  writeFileSync(path, 'file:///srv/mirror/\n')
  t.equal(
    await readFromMirrors({ url: `file://${path}`, architecture: 'x86_64' }, options, same),
    'file:///srv/mirror',
  )
  writeFileSync(path, 'http://host.example/')
  await t.rejects(
    readFromMirrors({ url: `file://${path}`, architecture: 'x86_64' }, options, same),
    { code: 'invalid_index' },
  )
})
