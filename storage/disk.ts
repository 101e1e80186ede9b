/*
 * Objects as files below a directory. A put writes to `.tmp/`, syncs, and only then gives the file its name, by
 * rename(2), or by link(2) where it must not exist yet; so a reader sees the old file or the new one, whole, and a
 * writer killed anywhere leaves nothing but a file in `.tmp/`, which the next to open the store removes.
 */
import { randomUUID } from 'node:crypto'
import { type BigIntStats, constants } from 'node:fs'
import { type FileHandle, link, open, readdir, rename, stat, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { clampRange, Measured, toReadable } from './body.ts'
import { sha256Of } from './digest.ts'
import { makeDirectories, syncDirectories } from './directory.ts'
import { absentIsNone, StoreError, type StoreErrorCode } from './error.ts'
import { isAbandonedLock, withLock } from './lock.ts'
import { checkKey, isKey } from './name.ts'
import type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'
import { isAbandoned, WRITER } from './writer.ts'

const TEMPORARY = '.tmp'
/** No put writes this long without a byte, in milliseconds. */
const ABANDONED = 24 * 3600 * 1000
/** A FIFO in the directory must not hold us. */
const READ = constants.O_RDONLY | constants.O_NONBLOCK

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
  ENXIO: 'not_found',
}

/** For a put: a part of the key is an object already, or the key is a part of others. */
const PUT_CODES: Record<string, StoreErrorCode> = {
  ...CODES,
  ENOENT: 'unreachable',
  EEXIST: 'invalid_key',
  ENOTDIR: 'invalid_key',
  EISDIR: 'invalid_key',
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | undefined)?.code ?? ''

/** Most that is read at once, in bytes: in Node's own pieces of 64 KiB a kernel's BTF takes twenty times as many calls. */
const AT_ONCE = 2 * 1024 * 1024

function readFrom(file: FileHandle, size: number, range: ByteRange | undefined): Readable {
  const { start, end } = range ? clampRange(range, size) : { start: 0, end: size - 1 }
  if (end < start) return file.createReadStream() // it is empty
  return file.createReadStream({ start, end, highWaterMark: Math.min(end - start + 1, AT_ONCE) })
}

/** Opens the store in a directory, which is made where it is missing. Errors: `not_permitted`, `unreachable`. */
export async function openDisk(root: string): Promise<Store> {
  const store = new DiskStore(root)
  await store.prepare()
  return store
}

class DiskStore implements Store {
  readonly url: string
  readonly #root: string
  readonly #temporary: string
  /** The directory without which the store is not there: an unmounted disk leaves its mount point. */
  #witness: string

  constructor(root: string) {
    this.url = `file:${root}`
    this.#root = root
    this.#temporary = join(root, TEMPORARY)
    this.#witness = root
  }

  /** Makes the directory and removes what killed writers left; one that may only be read is a store too. */
  async prepare(): Promise<void> {
    try {
      await this.#makeTemporary()
      await this.#removeAbandoned()
    } catch (error) {
      const explained = await this.#explain(error, 'open', PUT_CODES)
      if (explained.code === 'not_permitted' && (await this.#isThere())) return
      throw explained.code === 'invalid_key'
        ? new StoreError('unreachable', `${this.url} is not a directory`, { cause: error })
        : explained
    }
  }

  async get(key: string, range?: ByteRange): Promise<StoredObject> {
    const path = this.#path(key)
    const file = await this.#told(key, open(path, READ))
    try {
      const info = infoOf(key, await this.#told(key, file.stat({ bigint: true })))
      return { ...info, body: readFrom(file, info.size, range) }
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async head(key: string): Promise<ObjectInfo> {
    const path = this.#path(key)
    return infoOf(key, await this.#told(key, stat(path, { bigint: true })))
  }

  async put(
    key: string,
    body: Readable | Uint8Array,
    options: PutOptions = {},
  ): Promise<ObjectInfo> {
    const source = toReadable(body)
    const temporary = join(this.#temporary, `${WRITER}.${randomUUID()}`)
    try {
      checkKey(key)
      await this.#told(key, this.#makeTemporary(), PUT_CODES)
      const info = await this.#write(temporary, key, source, options)
      await this.#told(key, this.#publish(temporary, key, options), PUT_CODES)
      return info
    } finally {
      source.destroy()
      await unlink(temporary).catch(() => {})
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    const directory = prefix.slice(0, Math.max(prefix.lastIndexOf('/'), 0))
    await this.#assertThere()
    if (directory === '' || isKey(directory)) yield* this.#walk(directory, prefix)
  }

  async delete(key: string): Promise<void> {
    const path = this.#path(key)
    await this.#told(key, unlink(path)).catch(absentIsNone)
  }

  /** Once: where it was there and is no more, the disk is gone. */
  async #makeTemporary(): Promise<void> {
    if (this.#witness === this.#temporary) return
    await makeDirectories(this.#temporary)
    this.#witness = this.#temporary
  }

  /** Writes all that a source gives to a new file and syncs it. What fails in the source passes as it is. */
  async #write(
    path: string,
    key: string,
    source: Readable,
    { sha256, signal }: PutOptions,
  ): Promise<ObjectInfo> {
    const told = <T>(done: Promise<T>): Promise<T> => this.#told(key, done, PUT_CODES)
    const file = await told(open(path, 'wx'))
    try {
      const write = async (chunks: AsyncIterable<Buffer>): Promise<void> => {
        for await (const chunk of chunks) await told(file.writeFile(chunk))
      }
      await pipeline(source, new Measured(sha256), write, { ...(signal && { signal }) })
      await told(file.sync())
      return infoOf(key, await told(file.stat({ bigint: true })))
    } finally {
      await file.close()
    }
  }

  async #publish(temporary: string, key: string, options: PutOptions): Promise<void> {
    const path = this.#path(key)
    const made = await makeDirectories(dirname(path))
    if (options.ifAbsent) await this.#create(temporary, key)
    else if (options.ifMatch !== undefined) await this.#replace(temporary, key, options.ifMatch)
    else await rename(temporary, path)
    await syncDirectories(dirname(path), made ? dirname(made) : dirname(path))
  }

  async #create(temporary: string, key: string): Promise<void> {
    try {
      await link(temporary, this.#path(key))
    } catch (error) {
      if (codeOf(error) !== 'EEXIST' || !(await this.#headOrNone(key))) throw error
      throw new StoreError('precondition_failed', `${key} is there`)
    }
  }

  /**
   * Compare-and-swap: under a lock, since no system call compares and renames at once. It keeps out others that
   * compare, not a plain put or delete of the same key.
   */
  async #replace(temporary: string, key: string, etag: string): Promise<void> {
    const name = sha256Of(key)
    await withLock(join(this.#temporary, `${name}.lock`), async () => {
      if ((await this.#headOrNone(key))?.etag !== etag)
        throw new StoreError('precondition_failed', `${key} has changed`)
      await rename(temporary, this.#path(key))
    })
  }

  #headOrNone(key: string): Promise<ObjectInfo | undefined> {
    return this.head(key).catch(absentIsNone)
  }

  async *#walk(directory: string, prefix: string): AsyncGenerator<ObjectInfo> {
    for (const { name, isDirectory } of await this.#entries(directory)) {
      const key = directory === '' ? name : `${directory}/${name}`
      if (!isKey(key)) continue // `.tmp`, and what others put beside the objects
      if (isDirectory) {
        if (`${key}/`.startsWith(prefix)) yield* this.#walk(key, prefix)
      } else if (key.startsWith(prefix)) {
        const info = await this.#headOrNone(key) // deleted since
        if (info) yield info
      }
    }
  }

  /** What a directory holds, in byte order of the keys below it: a directory sorts by its name and the slash. */
  async #entries(directory: string): Promise<{ name: string; isDirectory: boolean }[]> {
    const path = join(this.#root, directory)
    const entries = await this.#told(directory, readdir(path, { withFileTypes: true })).catch(
      absentIsNone,
    )
    return (entries ?? [])
      .map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
      .sort((a, b) => (sortName(a) < sortName(b) ? -1 : 1))
  }

  /** Removes what killed writers left: of this machine's processes that are gone, of others when it is old. */
  async #removeAbandoned(): Promise<void> {
    for (const name of await readdir(this.#temporary)) {
      const path = join(this.#temporary, name)
      const abandoned = name.endsWith('.lock')
        ? await isAbandonedLock(path)
        : await isAbandoned(name, path, ABANDONED)
      if (abandoned) await unlink(path).catch(() => {})
    }
  }

  #path(key: string): string {
    checkKey(key)
    return join(this.#root, key)
  }

  /** The result of a call to the file system, or its error as what it means for `what`. */
  #told<T>(what: string, done: Promise<T>, codes = CODES): Promise<T> {
    return done.catch(async (error) => {
      throw error instanceof StoreError ? error : await this.#explain(error, what, codes)
    })
  }

  async #explain(error: unknown, what: string, codes: typeof CODES): Promise<StoreError> {
    let code = codes[codeOf(error)] ?? 'unreachable'
    if (code === 'not_found' && !(await this.#isThere())) code = 'unreachable'
    return new StoreError(code, `${this.url}: ${what}: ${(error as Error).message}`, {
      cause: error,
    })
  }

  #isThere(): Promise<boolean> {
    return stat(this.#witness).then(
      (found) => found.isDirectory(),
      () => false,
    )
  }

  async #assertThere(): Promise<void> {
    await this.#told('list', stat(this.#witness))
  }
}

const sortName = (entry: { name: string; isDirectory: boolean }): string =>
  entry.isDirectory ? `${entry.name}/` : entry.name

/** Errors: `not_found` for what is no file. */
function infoOf(key: string, found: BigIntStats): ObjectInfo {
  if (!found.isFile()) throw new StoreError('not_found', `${key} is not there`)
  const { size, mtimeNs, ino, mtime } = found
  return {
    key,
    size: Number(size),
    etag: `${ino.toString(36)}-${mtimeNs.toString(36)}`,
    modified: mtime,
  }
}
