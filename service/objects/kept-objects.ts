/*
 * BPF objects that people gave to the page, so that the address of a result keeps working: some in memory, and more in the
 * state directory, if there is one. Both are bounded; the least recently used is dropped first. A file has the object's name
 * as a line of JSON, then the object. It is called by the SHA-256 of the object, which is checked when it is read.
 */
import { mkdir, readdir, readFile, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import { sha256Of } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'

export interface KeptObject {
  /** file name that the client gave */
  readonly name: string
  readonly bytes: Buffer
}

/** Bytes in memory, and bytes and files on disk. */
const MEMORY = 32 * 1024 * 1024
const DISK = { size: 256 * 1024 * 1024, files: 2000 }
/** An object beyond this size is kept in memory only. */
const MAX_FILE = 8 * 1024 * 1024

const IS_DIGEST = /^[0-9a-f]{64}$/

export class KeptObjects {
  readonly #directory: string | undefined
  readonly #memory = new LRUCache<string, KeptObject>({
    maxSize: MEMORY,
    sizeCalculation: ({ name, bytes }) => bytes.length + name.length + 64,
  })
  readonly #onError: (error: unknown) => void
  /** the sizes of the files on disk, once they are listed */
  #files: Promise<LRUCache<string, number>> | undefined

  /** Without a directory, objects are forgotten when the process ends. */
  constructor(directory: string | undefined, onError: (error: unknown) => void = () => {}) {
    this.#directory = directory
    this.#onError = onError
  }

  /** Keeps an object; one that is kept already keeps its name. Returns the SHA-256 of its bytes, in hex. */
  async put({ name, bytes }: KeptObject): Promise<string> {
    const digest = sha256Of(bytes)
    if (await this.get(digest)) return digest
    this.#memory.set(digest, { name, bytes })
    if (this.#directory !== undefined && bytes.length <= MAX_FILE)
      await this.#write(this.#directory, digest, { name, bytes }).catch(this.#onError)
    return digest
  }

  /** The object with a digest; undefined if it is not kept. */
  async get(digest: string): Promise<KeptObject | undefined> {
    const held = this.#memory.get(digest)
    if (held || this.#directory === undefined || !IS_DIGEST.test(digest)) return held
    const path = join(this.#directory, digest)
    const file = await readFile(path).catch(() => undefined)
    const end = file?.indexOf('\n') ?? -1
    if (!file || end < 0) return undefined
    const object = { name: nameIn(file.subarray(0, end)), bytes: file.subarray(end + 1) }
    if (sha256Of(object.bytes) !== digest) return undefined
    const now = new Date()
    await utimes(path, now, now).catch(() => {}) // only the order of eviction depends on it
    await this.#files?.then(
      (files) => files.get(digest),
      () => {},
    )
    this.#memory.set(digest, object)
    return object
  }

  /** Writes a file, in place of those that were not used for longest. Errors: the system's. */
  async #write(directory: string, digest: string, { name, bytes }: KeptObject): Promise<void> {
    this.#files ??= listFiles(directory, this.#onError)
    const files = await this.#files.catch((error) => {
      this.#files = undefined // the next object tries again
      throw error
    })
    const content = Buffer.concat([Buffer.from(`${JSON.stringify(name)}\n`), bytes])
    files.set(digest, content.length)
    await writeWhole(join(directory, digest), content)
  }
}

/**
 * The sizes of the files in a directory, the least recently used first to go. A file that goes is removed. Errors: the
 * system's.
 */
async function listFiles(
  directory: string,
  onError: (error: unknown) => void,
): Promise<LRUCache<string, number>> {
  await mkdir(directory, { recursive: true })
  const found: { name: string; size: number; used: number }[] = []
  for (const name of await readdir(directory)) {
    const { size, mtimeMs: used } = await stat(join(directory, name))
    found.push({ name, size, used })
  }
  const files = new LRUCache<string, number>({
    max: DISK.files,
    maxSize: DISK.size,
    sizeCalculation: (size) => Math.max(size, 1),
    dispose: (_, name, reason) => {
      if (reason === 'evict') rm(join(directory, name), { force: true }).catch(onError)
    },
  })
  for (const { name, size } of found.sort((a, b) => a.used - b.used)) files.set(name, size)
  return files
}

function nameIn(line: Buffer): string {
  try {
    return String(JSON.parse(line.toString()))
  } catch {
    return 'object'
  }
}
