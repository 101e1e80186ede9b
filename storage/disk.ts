/*
 * Objects as files below a directory. A put writes to `.tmp/`, syncs, and only then gives the file its name, by
 * rename(2), or by link(2) where it must not exist yet; so a reader sees the old file or the new one, whole, and a
 * writer killed anywhere leaves nothing but a file in `.tmp/`, which the next to open the store removes.
 */
import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  stat,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { clampRange, Measured, toReadable } from './body.ts'
import { StoreError, type StoreErrorCode } from './error.ts'
import { checkKey } from './name.ts'
import type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'

const TEMPORARY = '.tmp'
/** Another machine's leftovers cannot be asked whether they live; after this they do not. Milliseconds. */
const ABANDONED = 24 * 3600 * 1000

const CODES: Record<string, StoreErrorCode> = {
  EACCES: 'not_permitted',
  EPERM: 'not_permitted',
  EROFS: 'not_permitted',
  ENOSPC: 'no_space',
  EDQUOT: 'no_space',
  EFBIG: 'no_space',
  ENAMETOOLONG: 'invalid_key',
  ENOENT: 'not_found',
  ENOTDIR: 'not_found',
  EISDIR: 'not_found',
}

/** This process, as its temporary files and locks name it. */
const WRITER = `${hostname()}.${process.pid}`

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | undefined)?.code ?? ''

/** Opens the store in a directory, which is made where it is missing. Errors: `not_permitted`, `unreachable`. */
export async function openDisk(root: string): Promise<Store> {
  const store = new DiskStore(root)
  try {
    await mkdir(join(root, TEMPORARY), { recursive: true })
    await store.removeAbandoned()
  } catch (error) {
    // A directory that may only be read is a store too.
    if (codeOf(error) !== 'EROFS' && codeOf(error) !== 'EACCES')
      throw await store.explain(error, root)
  }
  return store
}

class DiskStore implements Store {
  readonly url: string
  readonly #root: string

  constructor(root: string) {
    this.url = `file:${root}`
    this.#root = root
  }

  async get(key: string, range?: ByteRange): Promise<StoredObject> {
    const file = await this.#open(key)
    try {
      const info = await infoOf(key, file)
      const bounds = range ? clampRange(range, info.size) : {}
      return { ...info, body: file.createReadStream(bounds) }
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async head(key: string): Promise<ObjectInfo> {
    const file = await this.#open(key)
    try {
      return await infoOf(key, file)
    } finally {
      await file.close()
    }
  }

  async put(
    key: string,
    body: Readable | Uint8Array,
    options: PutOptions = {},
  ): Promise<ObjectInfo> {
    checkKey(key)
    const temporary = join(this.#root, TEMPORARY, `${WRITER}.${randomUUID()}`)
    try {
      await write(temporary, toReadable(body), options)
      return await this.#publish(temporary, key, options)
    } catch (error) {
      throw error instanceof StoreError || options.signal?.aborted
        ? error
        : await this.explain(error, key)
    } finally {
      await unlink(temporary).catch(() => {})
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    const directory = prefix.includes('/') ? prefix.slice(0, prefix.lastIndexOf('/')) : ''
    if (directory !== '') checkKey(directory)
    await this.#assertThere()
    yield* this.#walk(directory, prefix)
  }

  async delete(key: string): Promise<void> {
    try {
      await unlink(this.#path(key))
    } catch (error) {
      const explained = await this.explain(error, key)
      if (explained.code !== 'not_found') throw explained
    }
  }

  /** What an error of the file system means for `what`. */
  async explain(error: unknown, what: string): Promise<StoreError> {
    let code = CODES[codeOf(error)] ?? 'unreachable'
    if (code === 'not_found' && !(await this.#isThere())) code = 'unreachable'
    return new StoreError(code, `${this.url}: ${what}: ${(error as Error).message}`, {
      cause: error,
    })
  }

  /** Removes what killed writers left: of this machine's processes that are gone, of others after a day. */
  async removeAbandoned(): Promise<void> {
    const directory = join(this.#root, TEMPORARY)
    for (const name of await readdir(directory)) {
      const path = join(directory, name)
      const writer = name.endsWith('.lock') ? await readFile(path, 'utf8').catch(() => '') : name
      if (isGone(writer) ?? (await isOlder(path, ABANDONED))) await unlink(path).catch(() => {})
    }
  }

  async #publish(temporary: string, key: string, options: PutOptions): Promise<ObjectInfo> {
    const path = this.#path(key)
    await mkdir(dirname(path), { recursive: true })
    if (options.ifAbsent) {
      await link(temporary, path).catch((error) => {
        throw codeOf(error) === 'EEXIST'
          ? new StoreError('precondition_failed', `${key} is there`)
          : error
      })
    } else if (options.ifMatch !== undefined) {
      await this.#replace(temporary, key, options.ifMatch)
    } else {
      await rename(temporary, path)
    }
    await syncDirectory(dirname(path))
    return await this.head(key)
  }

  /** Compare-and-swap: under a lock, since no system call compares and renames at once. */
  async #replace(temporary: string, key: string, etag: string): Promise<void> {
    const lock = join(
      this.#root,
      TEMPORARY,
      `${createHash('sha256').update(key).digest('hex')}.lock`,
    )
    await takeLock(lock)
    try {
      const current = await this.head(key).catch(absentIsNone)
      if (current?.etag !== etag) throw new StoreError('precondition_failed', `${key} has changed`)
      await rename(temporary, this.#path(key))
    } finally {
      await unlink(lock)
    }
  }

  async *#walk(directory: string, prefix: string): AsyncGenerator<ObjectInfo> {
    for (const { name, isDirectory } of await this.#entries(directory)) {
      const key = directory === '' ? name : `${directory}/${name}`
      if (isDirectory) {
        if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`))
          yield* this.#walk(key, prefix)
      } else if (key.startsWith(prefix)) {
        const info = await this.head(key).catch(absentIsNone) // deleted since
        if (info) yield info
      }
    }
  }

  /** What a directory holds, in byte order of the keys below it: a directory sorts by its name and the slash. */
  async #entries(directory: string): Promise<{ name: string; isDirectory: boolean }[]> {
    try {
      const entries = await readdir(join(this.#root, directory), { withFileTypes: true })
      return entries
        .filter((entry) => !entry.name.startsWith('.'))
        .map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
        .sort((a, b) => (sortName(a) < sortName(b) ? -1 : 1))
    } catch (error) {
      const explained = await this.explain(error, directory)
      if (explained.code === 'not_found') return []
      throw explained
    }
  }

  async #open(key: string): Promise<FileHandle> {
    try {
      const file = await open(this.#path(key), 'r')
      if ((await file.stat()).isFile()) return file
      await file.close()
      throw new StoreError('not_found', `${key} is not there`)
    } catch (error) {
      throw error instanceof StoreError ? error : await this.explain(error, key)
    }
  }

  #path(key: string): string {
    checkKey(key)
    return join(this.#root, key)
  }

  #isThere = (): Promise<boolean> =>
    stat(this.#root).then(
      () => true,
      () => false,
    )

  async #assertThere(): Promise<void> {
    if (!(await this.#isThere())) throw new StoreError('unreachable', `${this.url} is not there`)
  }
}

async function write(path: string, body: Readable, { sha256, signal }: PutOptions): Promise<void> {
  const file = await open(path, 'wx')
  const target = createWriteStream(path, { fd: file, flush: true })
  await pipeline(body, new Measured(sha256), target, { ...(signal && { signal }) })
}

const sortName = (entry: { name: string; isDirectory: boolean }): string =>
  entry.isDirectory ? `${entry.name}/` : entry.name

const absentIsNone = (error: unknown): undefined => {
  if (error instanceof StoreError && error.code === 'not_found') return undefined
  throw error
}

async function infoOf(key: string, file: FileHandle): Promise<ObjectInfo> {
  const { size, mtimeNs, ino, mtime } = await file.stat({ bigint: true })
  return {
    key,
    size: Number(size),
    etag: `${ino.toString(36)}-${mtimeNs.toString(36)}`,
    modified: mtime,
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

const isOlder = (path: string, age: number): Promise<boolean> =>
  stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs > age,
    () => false,
  )

/** Takes a lock that this machine's dead may still hold. Errors: `precondition_failed` where a living one does. */
async function takeLock(path: string): Promise<void> {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      return await writeFile(path, WRITER, { flag: 'wx' })
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      if (isGone(await readFile(path, 'utf8').catch(() => ''))) await unlink(path).catch(() => {})
    }
  }
  throw new StoreError('precondition_failed', 'another writer replaces it just now')
}

/** Whether a writer of this machine is gone; undefined for another machine's, whom we cannot ask. */
function isGone(writer: string): boolean | undefined {
  const [host, pid] = /^(.*?)\.(\d+)(?:\.|$)/.exec(writer)?.slice(1) ?? []
  return host === hostname() ? !isRunning(Number(pid)) : undefined
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return codeOf(error) === 'EPERM'
  }
}
