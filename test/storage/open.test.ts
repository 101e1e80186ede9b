// Tests openStore: which URL opens which backend, and which URLs are rejected.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { DEFAULT_STORE, openStore } from '../../storage/index.ts'
import { keysOf, storeError, textOf } from '../helpers/store-contract.ts'

const home = mkdtempSync(join(tmpdir(), 'btfmill-open-'))
const elsewhere = process.cwd()
process.chdir(home)
t.teardown(() => {
  process.chdir(elsewhere)
  rmSync(home, { recursive: true })
})

t.test(
  'openStore makes the directory of a path or file: URL, and the store URL opens it again',
  async (t) => {
    t.equal(DEFAULT_STORE, 'file:./btfmill-store')
    const urls = {
      [DEFAULT_STORE]: 'btfmill-store',
      plain: 'plain',
      './plain/below': 'plain/below',
      [`${home}/plain:colon`]: 'plain:colon',
      'file:relative': 'relative',
      'file:./deep/er/still': 'deep/er/still',
      [`file:${home}/absolute`]: 'absolute',
      [`file://${home}/slashes`]: 'slashes',
      'file:./with space+%20:?#': 'with space+%20:?#',
      [`file:./${'n'.repeat(255)}`]: 'n'.repeat(255),
    }
    for (const [url, path] of Object.entries(urls)) {
      const store = await openStore(url)
      t.ok(existsSync(join(home, path)), url)
      t.equal(store.url, `file:${join(home, path)}`)
      await store.put('a', Buffer.from(url))
      t.equal(await textOf(await openStore(store.url), 'a'), url, 'its URL opens it again')
    }
  },
)

t.test('openStore with create: false makes nothing and rejects a missing directory', async (t) => {
  const open = (url: string) => openStore(url, { create: false })
  await t.rejects(open('./missing'), {
    ...storeError('not_found'),
    message: /no store at .*\/missing:/,
  })
  t.notOk(existsSync(join(home, 'missing')))
  mkdirSync(join(home, 'bare'))
  const bare = await open('bare')
  t.same(readdirSync(join(home, 'bare')), [])
  t.same(await keysOf(bare, ''), [])
  await bare.put('a', Buffer.from('x'))
  t.equal(await textOf(await open('bare'), 'a'), 'x', 'a store like any other')
  writeFileSync(join(home, 'file'), '')
  await t.rejects(open('file'), storeError('unreachable'))
})

t.test('openStore gives a new, empty store for each memory: URL', async (t) => {
  const store = await openStore('memory:')
  await store.put('a', Buffer.from('x'))
  t.equal(store.url, 'memory:')
  t.same(await keysOf(await openStore('memory:'), ''), [])
})

t.test('openStore rejects any other URL as unsupported', async (t) => {
  const urls = ['', 'file:', 'file://', 'FILE:./dir', 'https://127.0.0.1/']
  for (const url of [
    ...urls,
    'constructor:x',
    '__proto__:x',
    ':',
    ' file:./dir',
    's3://',
    's3:dir',
  ])
    await t.rejects(openStore(url), storeError('unsupported'), JSON.stringify(url))
  t.same(await keysOf(await openStore('file:./new'), ''), [])
  await t.rejects(openStore('file:a\0b'), storeError('unreachable'))
})

t.test('the error for an unsupported URL does not repeat its password', async (t) => {
  for (const url of ['https://key:hunter2@host/', 's3://key:hunter2@bucket/', 'ftp:hunter2'])
    await t.rejects(openStore(url), { code: 'unsupported', message: /^(?!.*hunter2)/ }, url)
})
