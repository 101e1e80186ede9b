// The contract of `Store` on disk, and what only a disk does: killed writers, full and read-only file systems.
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openStore } from '../../storage/index.ts'
import { testStore } from './contract.ts'

const NOBODY = 65534

const home = mkdtempSync(join(tmpdir(), 'btfmill-disk-'))
t.teardown(() => rmSync(home, { recursive: true }))

/** Runs as a user whom permissions hold back; root is not. */
async function unprivileged<T>(run: () => Promise<T>): Promise<T> {
  const user = process.geteuid!()
  if (user === 0) process.seteuid!(NOBODY)
  try {
    return await run()
  } finally {
    if (user === 0) process.seteuid!(user)
  }
}

t.test('the contract', async (t) => {
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
    /** A mount point whose disk has gone is an empty directory. */
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
