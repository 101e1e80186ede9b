// Tests the disk store: the contract of `Store`, full and read-only file systems, and files that others left.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t, { type Test } from 'tap'
import { encodeName, openStore, putBlob, type Store } from '../../storage/index.ts'
import { WRITER } from '../../storage/writer.ts'
import { keysOf, storeError, testStore, textOf } from '../helpers/store-contract.ts'

const NOBODY = 65534

const home = mkdtempSync(join(tmpdir(), 'btfmill-disk-'))
chmodSync(home, 0o755)
t.teardown(() => rmSync(home, { recursive: true }))

/** Runs as a user without privileges, since permissions do not restrict root. */
async function unprivileged<T>(run: () => Promise<T>): Promise<T> {
  const user = process.geteuid!()
  if (user === 0) process.seteuid!(NOBODY)
  try {
    return await run()
  } finally {
    if (user === 0) process.seteuid!(user)
  }
}

t.test('the disk store fulfils the contract of Store', async (t) => {
  const root = join(home, 'contract')
  const url = `file:${root}`
  await testStore(t, {
    open: () => openStore(url),
    leftovers: async () => readdirSync(join(root, '.tmp')),
    async refusing(use) {
      const store = await openStore(url)
      chmodSync(root, 0)
      try {
        await unprivileged(() => use(store))
      } finally {
        chmodSync(root, 0o755)
      }
    },
    /** The mount point of an unmounted disk is an empty directory. */
    async unreachable(use) {
      const store = await openStore(url)
      renameSync(root, `${root}.disk`)
      mkdirSync(root)
      try {
        await use(store)
      } finally {
        rmdirSync(root)
        renameSync(`${root}.disk`, root)
      }
    },
  })
})

/** Mounts a small file system, or says why that is not possible. */
function mountSmall(t: Test, name: string): string | { skip: string } {
  const path = join(home, name)
  mkdirSync(path)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,nr_inodes=64', 'none', path])
  } catch (error) {
    return { skip: `a tmpfs cannot be mounted: ${(error as Error).message.trim()}` }
  }
  t.teardown(() => execFileSync('umount', [path]))
  return path
}

/** The objects of a store, by key, and the temporary files in its directory. */
async function contentOf(store: Store, root: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {}
  for (const key of await keysOf(store, '')) content[key] = (await textOf(store, key)).slice(0, 9)
  for (const name of readdirSync(join(root, '.tmp'))) content[`.tmp/${name}`] = ''
  return content
}

const MIB = 1024 * 1024
const full = mountSmall(t, 'full')

t.test(
  'a put on a full disk fails with no_space and keeps the existing objects',
  typeof full === 'string' ? {} : full,
  async (t) => {
    const root = String(full)
    const store = await openStore(`file:${root}`)
    await store.put('old', Buffer.alloc(3 * MIB, 'o'))
    for (const key of ['old', 'new', 'a/b'])
      for (const body of [Buffer.alloc(2 * MIB, 'n'), Readable.from([Buffer.alloc(2 * MIB, 'n')])])
        await t.rejects(store.put(key, body), storeError('no_space'), key)
    await t.rejects(putBlob(store, randomBytes(2 * MIB)), storeError('no_space'))
    t.same(await contentOf(store, root), { old: 'ooooooooo' })

    const names = Array.from({ length: 100 }, (_, i) => `many/${i}`)
    const refused = names.map((name) => store.put(name, Buffer.from('x')))
    const codes = (await Promise.allSettled(refused)).map(
      (one) => 'reason' in one && one.reason.code,
    )
    t.ok(codes.includes('no_space'), 'no inodes left')
    t.same(readdirSync(join(root, '.tmp')), [])
    for (const key of await keysOf(store, '')) await store.delete(key)
    await store.put('new', Buffer.alloc(3 * MIB, 'n'))
    t.same(await contentOf(store, root), { new: 'nnnnnnnnn' }, 'a put succeeds once there is space')
  },
)

t.test(
  'a read-only directory can be opened and read, and puts fail with not_permitted',
  async (t) => {
    const root = join(home, 'readable')
    await (await openStore(`file:${root}`)).put('a/b', Buffer.from('x'))
    for (const temporary of ['with', 'without']) {
      if (temporary === 'without') rmSync(join(root, '.tmp'), { recursive: true })
      for (const path of readdirSync(root)) chmodSync(join(root, path), 0o555)
      chmodSync(root, 0o555)
      await unprivileged(async () => {
        const store = await openStore(`file:${root}`)
        t.equal(await textOf(store, 'a/b'), 'x')
        t.same(await keysOf(store, ''), ['a/b'])
        await t.rejects(store.get('a/c'), storeError('not_found'))
        for (const key of ['a/b', 'a/c', 'd'])
          await t.rejects(store.put(key, Buffer.from('y')), storeError('not_permitted'), key)
        await t.rejects(store.delete('a/b'), storeError('not_permitted'))
      })
      chmodSync(root, 0o755)
    }
  },
)

t.test(
  'a read-only file system can be opened and read, and puts fail with not_permitted',
  typeof full === 'string' ? {} : full,
  async (t) => {
    const url = `file:${String(full)}`
    await (await openStore(url)).put('a/b', Buffer.from('x'))
    execFileSync('mount', ['-o', 'remount,ro', String(full)])
    const store = await openStore(url)
    t.equal(await textOf(store, 'a/b'), 'x')
    await t.rejects(store.put('a/b', Buffer.from('y')), storeError('not_permitted'))
    await t.rejects(store.delete('a/b'), storeError('not_permitted'))
    await t.rejects(openStore(`${url}/sub`), storeError('not_permitted'))
  },
)

t.test('opening a path that cannot become a directory fails and does not hang', async (t) => {
  writeFileSync(join(home, 'file'), '')
  await t.rejects(openStore(`file:${home}/file`), storeError('unreachable'))
  await t.rejects(openStore(`file:${home}/file/sub`), storeError('unreachable'))
  await t.rejects(
    openStore('file:/proc/none'),
    storeError('unreachable'),
    'mkdir that gives ENOENT below an existing directory',
  )
  await t.rejects(openStore(`file:${home}/${'n'.repeat(256)}`), storeError('unreachable'))
  mkdirSync(join(home, 'frozen'))
  chmodSync(join(home, 'frozen'), 0o555)
  const frozen = () => openStore(`file:${home}/frozen/store`)
  await t.rejects(unprivileged(frozen), storeError('not_permitted'))
})

t.test(
  'a name of 255 bytes is stored, and a longer one, encoded or not, is rejected',
  async (t) => {
    const store = await openStore(`file:${home}/long`)
    const release = `6.1.0-${'+x'.repeat(124)}y`
    const key = `kernels/${encodeName(release)}/${encodeName('b'.repeat(255))}`
    await store.put(key, Buffer.from('x'))
    t.equal(release.length, 255)
    t.equal(await textOf(store, key), 'x')
    t.same(await keysOf(store, 'kernels/6.1.0-'), [key])
    for (const name of [`${release}z`, ':'.repeat(86), 'ä'.repeat(43)])
      t.throws(() => encodeName(name), storeError('invalid_key'))
  },
)

t.test(
  'foreign files, links and FIFOs in the directory are ignored',
  { timeout: 10_000 },
  async (t) => {
    const root = join(home, 'others')
    const store = await openStore(`file:${root}`)
    await store.put('a/b', Buffer.from('x'))
    for (const name of ['.hidden', 'a/.swp', 'a/#b#', 'a/ä', 'a b'])
      writeFileSync(join(root, name), '')
    mkdirSync(join(root, 'a/c d'))
    symlinkSync('/none', join(root, 'a/dangling'))
    symlinkSync('.', join(root, 'a/loop'))
    execFileSync('mkfifo', [join(root, 'a/fifo')])
    t.same(await keysOf(store, ''), ['a/b'])
    for (const key of ['a/dangling', 'a/loop', 'a/fifo']) {
      await t.rejects(store.get(key), storeError('not_found'), key)
      await t.rejects(store.head(key), storeError('not_found'), key)
    }
  },
)

t.test(
  'opening removes the temporary files of dead writers and keeps those of living ones',
  async (t) => {
    const root = join(home, 'leftovers')
    const url = `file:${root}`
    const store = await openStore(url)
    const dead = spawnSync('true').pid
    const [space, , start] = WRITER.split('.')
    const old = new Date(Date.now() - 25 * 3600 * 1000)
    const leave = (name: string, mtime = new Date()) => {
      writeFileSync(join(root, '.tmp', name), 'half')
      utimesSync(join(root, '.tmp', name), mtime, mtime)
    }
    leave(`${space}.${dead}.${start}.x`)
    leave(`${space}.${process.pid}.${Number(start) - 1}.reused`)
    leave('elsewhere.1.1.old', old)
    leave('unknown', old)
    leave(`${WRITER}.mine`, old)
    leave('elsewhere.1.1.recent')
    let end = () => {}
    const waiting = new Promise<void>((resolve) => {
      end = resolve
    })
    const slow = store.put('slow', Readable.from(slowly(waiting)))
    await openStore(url)
    const left = readdirSync(join(root, '.tmp')).filter((name) => /mine|recent/.test(name))
    t.same(left.sort(), [`${WRITER}.mine`, 'elsewhere.1.1.recent'].sort())
    end()
    t.match(await slow, { size: 8 })
    t.equal(await textOf(store, 'slow'), 'beginend')
  },
)

async function* slowly(until: Promise<void>): AsyncGenerator<Buffer> {
  yield Buffer.from('begin')
  await until
  yield Buffer.from('end')
}

t.test(
  'a put takes over the lock of a dead writer, and respects that of a living one',
  async (t) => {
    const root = join(home, 'locked')
    const store = await openStore(`file:${root}`)
    const { etag } = await store.put('a', Buffer.from('1'))
    const name = createHash('sha256').update('a').digest('hex')
    const lock = join(root, '.tmp', `${name}.lock`)
    const [space, , start] = WRITER.split('.')
    symlinkSync(WRITER, lock)
    const living = store.put('a', Buffer.from('2'), { ifMatch: etag })
    await t.rejects(living, storeError('precondition_failed'))
    rmSync(lock)
    symlinkSync(`${space}.${spawnSync('true').pid}.${start}`, lock)
    await store.put('a', Buffer.from('2'), { ifMatch: etag })
    t.same(await contentOf(store, root), { a: '2' })
  },
)
