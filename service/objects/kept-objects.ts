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
  #writing: Promise<void> = Promise.resolve()

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
    if (this.#directory !== undefined && bytes.length <= MAX_FILE) {
      const path = join(this.#directory, digest)
      const head = Buffer.from(`${JSON.stringify(name)}\n`)
      this.#writing = this.#writing
        .then(() => this.#makeRoom(bytes.length))
        .then(() => writeWhole(path, Buffer.concat([head, bytes])))
        .catch(this.#onError)
      await this.#writing
    }
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
    this.#memory.set(digest, object)
    return object
  }

  /** Removes the files that were not used for longest until so many bytes fit. Errors: the system's. */
  async #makeRoom(wanted: number): Promise<void> {
    const directory = this.#directory!
    await mkdir(directory, { recursive: true })
    const files: { path: string; size: number; used: number }[] = []
    for (const name of await readdir(directory)) {
      const path = join(directory, name)
      const { size, mtimeMs: used } = await stat(path)
      files.push({ path, size, used })
    }
    files.sort((a, b) => a.used - b.used)
    let size = files.reduce((sum, file) => sum + file.size, wanted)
    let count = files.length + 1
    for (const file of files) {
      if (size <= DISK.size && count <= DISK.files) return
      await rm(file.path, { force: true })
      size -= file.size
      count--
    }
  }
}

function nameIn(line: Buffer): string {
  try {
    return String(JSON.parse(line.toString()))
  } catch {
    return 'object'
  }
}
