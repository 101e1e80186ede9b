import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readExact, readIndex } from '../../../generator/indexes/index-cache.ts'
import { serveDirectory } from '../../helpers/file-server.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'

const sha = (algorithm: 'sha1' | 'sha256' | 'sha512', text: string) =>
  ({ algorithm, hex: createHash(algorithm).update(text).digest('hex') }) as const

/** Makes a directory with the file `index`, whose content is `one`, and the path of a cache. */
function files(t: Test) {
  const root = t.testdir({ files: { index: 'one' } })
  const [directory, cache] = [join(root, 'files'), join(root, 'cache')]
  return {
    directory,
    file: join(directory, 'index'),
    cache,
    options: { cache, retry: IMPATIENT },
  }
}

t.test('an unchanged file is not sent again, with either validator', async (t) => {
  for (const validator of ['etag', 'last-modified', 'both'] as const) {
    await t.test(validator, async (t) => {
      const { directory, file, options } = files(t)
      const { url, answered } = await serveDirectory(t, directory, validator)
      const read = async () => (await readIndex(`${url}/index`, 100, options)).toString()
      t.equal(await read(), 'one')
      t.equal(await read(), 'one')
      t.same(answered(), ['/index 200', '/index 304'])
      writeFileSync(file, 'two')
      utimesSync(file, 1e9, 1e9)
      t.equal(await read(), 'two', 'a changed file is')
      t.equal(await read(), 'two')
      t.same(answered(), ['/index 200', '/index 304'])
    })
  }
})

t.test('a response without validators is not cached', async (t) => {
  const { directory, cache, options } = files(t)
  const { url, answered } = await serveDirectory(t, directory, 'none')
  await readIndex(`${url}/index`, 100, options)
  await readIndex(`${url}/index`, 100, options)
  t.same(answered(), ['/index 200', '/index 200'])
  t.throws(() => readdirSync(cache), { code: 'ENOENT' })
})

t.test('a damaged cache entry is downloaded again', async (t) => {
  const { directory, cache, options } = files(t)
  const { url, answered } = await serveDirectory(t, directory)
  const read = async () => (await readIndex(`${url}/index`, 100, options)).toString()
  await read()
  const [entry] = readdirSync(cache).filter((name) => name.endsWith('.json'))
  const content = sha('sha256', 'one').hex
  t.same(readdirSync(cache).sort(), [entry, content].sort())
  const stored = readFileSync(join(cache, entry!), 'utf8')
  const damages: readonly (readonly [string, string])[] = [
    [content, 'tampered'],
    [entry!, ''],
    [entry!, '[]'],
    [entry!, stored.replace(url, 'http://other.example')],
    [entry!, stored.replace(content, '../../../etc/passwd')],
  ]
  for (const [name, text] of damages) {
    answered()
    writeFileSync(join(cache, name), text)
    t.equal(await read(), 'one')
    t.same(answered(), ['/index 200'], text)
  }
})

t.test('a 304 for a file that is not cached is an error', async (t) => {
  const { options } = files(t)
  const { url } = await startServer(t, (_, response) => void response.writeHead(304).end())
  await t.rejects(readIndex(url, 100, options), { code: 'unreachable' })
})

t.test('a run requests a URL once, even if several readers want it or it fails', async (t) => {
  const { directory, options } = files(t)
  const { url, answered } = await serveDirectory(t, directory, 'none')
  const responses = new Map<string, Promise<Buffer>>()
  const read = (path: string) => readIndex(`${url}/${path}`, 100, { ...options, responses })
  await Promise.all([read('index'), read('index')])
  await read('index')
  await t.rejects(Promise.all([read('missing'), read('missing')]), { code: 'not_found_upstream' })
  t.same(answered(), ['/index 200', '/missing 404'])
})

t.test('an immutable file is requested once', async (t) => {
  const { directory, options } = files(t)
  const { url, answered } = await serveDirectory(t, directory, 'none')
  for (let i = 0; i < 3; i++)
    t.equal(String(await readIndex(`${url}/index`, 100, { ...options, immutable: true })), 'one')
  t.same(answered(), ['/index 200'])
})

t.test('readIndex enforces its limit, and reads local files', async (t) => {
  const { directory, file, options } = files(t)
  const { url } = await serveDirectory(t, directory)
  await t.rejects(readIndex(`${url}/index`, 2, options), { code: 'too_large' })
  t.equal(String(await readIndex(`file://${file}`, 100, options)), 'one')
})

t.test('cached files that are unused for a month are removed, and no other files', async (t) => {
  const { directory, cache, options } = files(t)
  const { url } = await serveDirectory(t, directory)
  mkdirSync(cache)
  const [old, recent] = ['a'.repeat(64), 'b'.repeat(64)]
  const month = 31 * 24 * 3600
  for (const name of [old, `${old}.json`, recent, 'mine', 'package.json']) {
    writeFileSync(join(cache, name), name)
    const when = Date.now() / 1000 - (name === recent ? month - 2 * 24 * 3600 : month)
    utimesSync(join(cache, name), when, when)
  }
  await readIndex(`${url}/index`, 100, options)
  const left = readdirSync(cache)
  t.same(left.filter((name) => [recent, 'mine', 'package.json'].includes(name)).length, 3)
  t.equal(left.length, 5, 'these, and the two files of the new response')
})

t.test('a file with a known digest is requested once, and rejected if it differs', async (t) => {
  const { directory, cache, options } = files(t)
  const { url, answered } = await serveDirectory(t, directory)
  const urls = [`${url}/index`]
  for (const algorithm of ['sha1', 'sha256', 'sha512'] as const) {
    const file = { urls, checksum: sha(algorithm, 'one'), size: 3 }
    t.equal(String(await readExact(file, options)), 'one')
    t.equal(String(await readExact(file, options)), 'one')
    t.same(answered(), ['/index 200'], `${algorithm}: the second read makes no request`)
  }
  const other = { urls, checksum: sha('sha256', 'two'), size: 3 }
  await t.rejects(readExact(other, options), { code: 'index_mismatch' })
  await t.rejects(readExact({ ...other, size: 2 }, options), { code: 'too_large' })
  mkdirSync(cache, { recursive: true })
  t.notOk(readdirSync(cache).includes(other.checksum.hex), 'the wrong file is not cached')
  const elsewhere = [`${url}/missing`, ...urls]
  const fresh = { ...options, cache: join(cache, 'fresh') }
  t.equal(
    String(await readExact({ urls: elsewhere, checksum: sha('sha256', 'one'), size: 3 }, fresh)),
    'one',
  )
  t.same(answered().slice(-2), ['/missing 404', '/index 200'])
})
