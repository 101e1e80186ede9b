/*
 * A store whose objects are files below a directory. A put writes to a file in `.tmp/`, syncs it and then gives it its
 * name: by rename(2), or by link(2) if the name must not exist yet. A reader sees the old file or the new file, whole.
 * A killed writer leaves at most a file in `.tmp/`, and the next process that opens the store removes it.
 */
import { randomUUID } from 'node:crypto'
import { type BigIntStats, constants, type Stats } from 'node:fs'
import { type FileHandle, link, lstat, open, readdir, rename, stat, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { clampRange, HashingStream, sha256Of, toReadable } from './body.ts'
import { makeDirectories, syncDirectories } from './directory.ts'
import { ignoreNotFound, isUnreadable, StoreError, type StoreErrorCode } from './error.ts'
import { isStaleLock, withLock } from './lock.ts'
import { checkKey, isKey, isObjectKey } from './name.ts'
import type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'
import { isAbandoned, WRITER } from './writer.ts'

const TEMPORARY = '.tmp'
/** A temporary file of another machine is abandoned after this long without a write, in milliseconds. */
const ABANDONED = 24 * 3600 * 1000
/** Non-blocking, so that opening a FIFO in the directory does not hang. */
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
  ELOOP: 'unreadable',
  EIO: 'unreadable',
}

/** For a put: a file is where a directory should be, or the reverse, if one key is a path prefix of another. */
const PUT_CODES: Record<string, StoreErrorCode> = {
  ...CODES,
  ENOENT: 'unreachable',
  EEXIST: 'invalid_key',
  ENOTDIR: 'invalid_key',
  EISDIR: 'invalid_key',
  ELOOP: 'invalid_key',
  EIO: 'unreachable',
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | undefined)?.code ?? ''

/** Bytes that one read call asks for. With Node's default of 64 KiB a kernel's BTF takes twenty times as many calls. */
const READ_SIZE = 2 * 1024 * 1024

function readFrom(file: FileHandle, size: number, range: ByteRange | undefined): Readable {
  const { start, end } = range ? clampRange(range, size) : { start: 0, end: size - 1 }
  if (end < start) return file.createReadStream() // the file is empty
  return file.createReadStream({ start, end, highWaterMark: Math.min(end - start + 1, READ_SIZE) })
}

/**
 * Opens the store in a directory. Makes the directory if it is missing, unless `create` is false: then nothing is made.
 * Errors: `not_found` for a missing directory that is not to be made, `not_permitted`, `unreachable`.
 */
export async function openDisk(root: string, { create = true } = {}): Promise<Store> {
  const store = new DiskStore(root)
  if (create || (await hasTemporary(root))) await store.prepare()
  return store
}

/** Tells whether the directory of a store has its directory for temporary files. Errors: as `openDisk`. */
async function hasTemporary(root: string): Promise<boolean> {
  const [directory, temporary] = await Promise.all([root, join(root, TEMPORARY)].map(statOrNone))
  if (!directory)
    throw new StoreError('not_found', `no store at ${root}: the directory does not exist`)
  if (!directory.isDirectory())
    throw new StoreError('unreachable', `file:${root} is not a directory`)
  return temporary !== undefined
}

async function statOrNone(path: string): Promise<Stats | undefined> {
  return await stat(path).catch((error: Error) => {
    const code = PUT_CODES[codeOf(error)] === 'not_permitted' ? 'not_permitted' : 'unreachable'
    if (CODES[codeOf(error)] === 'not_found') return undefined
    throw new StoreError(code, error.message, { cause: error })
  })
}

class DiskStore implements Store {
  readonly url: string
  readonly #root: string
  readonly #temporary: string
  /** A directory that exists while the store's disk is mounted; an unmounted disk leaves an empty mount point. */
  #mountProbe: string

  constructor(root: string) {
    this.url = `file:${root}`
    this.#root = root
    this.#temporary = join(root, TEMPORARY)
    this.#mountProbe = root
  }

  /** Makes the directory and removes the files of killed writers. A read-only directory is a valid store. */
  async prepare(): Promise<void> {
    try {
      await this.#makeTemporary()
      await this.#removeAbandoned()
    } catch (error) {
      const mapped = await this.#toStoreError(error, 'open', PUT_CODES)
      if (mapped.code === 'not_permitted' && (await this.#isMounted())) return
      throw mapped.code === 'invalid_key'
        ? new StoreError('unreachable', `${this.url} is not a directory`, { cause: error })
        : mapped
    }
  }

  async get(key: string, range?: ByteRange): Promise<StoredObject> {
    const path = this.#path(key)
    const file = await this.#mapped(key, open(path, READ)).catch((error) => this.#fail(key, error))
    try {
      const found = await this.#mapped(key, file.stat({ bigint: true }))
      const info = found.isFile() ? infoOf(key, found) : await this.#fail(key, missing(key))
      return { ...info, body: readFrom(file, info.size, range) }
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async head(key: string): Promise<ObjectInfo> {
    const path = this.#path(key)
    try {
      return infoOf(key, await this.#mapped(key, stat(path, { bigint: true })))
    } catch (error) {
      return await this.#fail(key, error)
    }
  }

  /** Throws the error of a read. A link to nothing, or a directory in an object's place, is no missing object. */
  async #fail(key: string, error: unknown): Promise<never> {
    ignoreNotFound(error)
    const found = isObjectKey(key) ? await lstat(this.#path(key)).catch(() => undefined) : undefined
    const what = found?.isSymbolicLink()
      ? 'a symbolic link to no file'
      : found?.isDirectory() && 'a directory'
    if (!what) throw error
    throw new StoreError('unreadable', `${this.url}: ${key} is ${what}: expected a file`)
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
      await this.#mapped(key, this.#makeTemporary(), PUT_CODES)
      const info = await this.#write(temporary, key, source, options)
      await this.#mapped(key, this.#publish(temporary, key, options), PUT_CODES)
      return info
    } finally {
      source.destroy()
      await unlink(temporary).catch(() => {})
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    const directory = prefix.slice(0, Math.max(prefix.lastIndexOf('/'), 0))
    await this.#assertMounted()
    if (directory === '' || isKey(directory)) yield* this.#walk(directory, prefix)
  }

  async delete(key: string): Promise<void> {
    const path = this.#path(key)
    await this.#mapped(key, unlink(path)).catch(ignoreNotFound)
  }

  /** Makes `.tmp/` once. If it is missing later, the disk is no longer mounted. */
  async #makeTemporary(): Promise<void> {
    if (this.#mountProbe === this.#temporary) return
    await makeDirectories(this.#temporary)
    this.#mountProbe = this.#temporary
  }

  /** Writes a source to a new file and syncs it. Errors: those of `put`; the source's own are passed on unchanged. */
  async #write(
    path: string,
    key: string,
    source: Readable,
    { sha256, signal }: PutOptions,
  ): Promise<ObjectInfo> {
    const mapped = <T>(call: Promise<T>): Promise<T> => this.#mapped(key, call, PUT_CODES)
    const file = await mapped(open(path, 'wx'))
    try {
      const write = async (chunks: AsyncIterable<Buffer>): Promise<void> => {
        for await (const chunk of chunks) await mapped(file.writeFile(chunk))
      }
      await pipeline(source, new HashingStream(sha256), write, { ...(signal && { signal }) })
      await mapped(file.sync())
      return infoOf(key, await mapped(file.stat({ bigint: true })))
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
      throw new StoreError('precondition_failed', `${key} exists already`)
    }
  }

  /**
   * Compare-and-swap, under a lock, since no system call compares and renames in one step. The lock excludes other
   * conditional puts, not a plain put or delete of the same key.
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
    return this.head(key).catch(ignoreNotFound)
  }

  async *#walk(directory: string, prefix: string): AsyncGenerator<ObjectInfo> {
    yield* this.#walkEntries(await this.#entries(directory), directory, prefix)
  }

  /**
   * A file or a directory below the listed one that cannot be read is listed as an object: its `get` tells why, and the
   * others go on.
   */
  async *#walkEntries(
    entries: readonly Entry[],
    directory: string,
    prefix: string,
  ): AsyncGenerator<ObjectInfo> {
    for (const { name, isDirectory } of entries) {
      const key = directory === '' ? name : `${directory}/${name}`
      if (!isKey(key)) continue // `.tmp`, and files of others
      if (isDirectory && !isObjectKey(key)) {
        if (!`${key}/`.startsWith(prefix)) continue
        const below = await this.#entries(key).catch((error) => this.#unreadable(key, error))
        if (Array.isArray(below)) yield* this.#walkEntries(below, key, prefix)
        else if (below) yield below
      } else if (key.startsWith(prefix)) {
        const info = await this.#headOrNone(key).catch((error) => this.#unreadable(key, error))
        if (info) yield info // none if deleted meanwhile
      }
    }
  }

  /** For `catch`: the info of what cannot be read, from lstat(2). Errors: those that concern more than one object. */
  async #unreadable(key: string, error: unknown): Promise<ObjectInfo> {
    if (!isUnreadable(error)) throw error
    const found = await lstat(this.#path(key), { bigint: true }).catch(() => undefined)
    return describe(key, found ?? NOTHING)
  }

  /** A directory's entries in byte order of their keys: a directory sorts by its name with a slash. */
  async #entries(directory: string): Promise<Entry[]> {
    const path = join(this.#root, directory)
    const entries = await this.#mapped(directory, readdir(path, { withFileTypes: true })).catch(
      ignoreNotFound,
    )
    return (entries ?? [])
      .map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
      .sort((a, b) => (sortName(a) < sortName(b) ? -1 : 1))
  }

  /** Removes the files of killed writers: of dead processes of this machine, and old files of other machines. */
  async #removeAbandoned(): Promise<void> {
    for (const name of await readdir(this.#temporary)) {
      const path = join(this.#temporary, name)
      const abandoned = name.endsWith('.lock')
        ? await isStaleLock(path)
        : await isAbandoned(name, path, ABANDONED)
      if (abandoned) await unlink(path).catch(() => {})
    }
  }

  #path(key: string): string {
    checkKey(key)
    return join(this.#root, key)
  }

  /** Awaits a file system call and maps its error to a `StoreError` about `what`. */
  #mapped<T>(what: string, call: Promise<T>, codes = CODES): Promise<T> {
    return call.catch(async (error) => {
      throw error instanceof StoreError ? error : await this.#toStoreError(error, what, codes)
    })
  }

  async #toStoreError(error: unknown, what: string, codes: typeof CODES): Promise<StoreError> {
    let code = codes[codeOf(error)] ?? 'unreachable'
    if (code === 'not_found' && !(await this.#isMounted())) code = 'unreachable'
    return new StoreError(code, `${this.url}: ${what}: ${(error as Error).message}`, {
      cause: error,
    })
  }

  #isMounted(): Promise<boolean> {
    return stat(this.#mountProbe).then(
      (found) => found.isDirectory(),
      () => false,
    )
  }

  async #assertMounted(): Promise<void> {
    await this.#mapped('list', stat(this.#mountProbe))
  }
}

interface Entry {
  name: string
  isDirectory: boolean
}

/** For an entry of a directory that may be listed but not searched. */
const NOTHING = { size: 0n, mtimeNs: 0n, ino: 0n, mtime: new Date(0) }

const missing = (key: string): StoreError => new StoreError('not_found', `${key} does not exist`)

const sortName = (entry: Entry): string => (entry.isDirectory ? `${entry.name}/` : entry.name)

/** The info of a file. Errors: `not_found` for anything that is not a regular file. */
function infoOf(key: string, found: BigIntStats): ObjectInfo {
  if (!found.isFile()) throw missing(key)
  return describe(key, found)
}

function describe(
  key: string,
  found: Pick<BigIntStats, 'size' | 'mtimeNs' | 'ino' | 'mtime'>,
): ObjectInfo {
  const { size, mtimeNs, ino, mtime } = found
  return {
    key,
    size: Number(size),
    etag: `${ino.toString(36)}-${mtimeNs.toString(36)}`,
    modified: mtime,
  }
}
