/*
 * An append-only journal of a server's own state: JSON lines in a file. Concurrent appends share one write. When the
 * file has grown too much, it is rewritten from the current state. A process that is killed loses no line whose append
 * was awaited; an incomplete last line is skipped. A failing disk fails no request: the next write stores the whole
 * state again.
 *
 * Only one process may use a file.
 */
import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/** The maximum size of a file, in bytes: a larger file is discarded. */
const MAX_SIZE = 256 * 1024 * 1024
/** The file is rewritten after this many appended lines, or after this multiple of its last state if that is more. */
const MIN_LINES = 10_000
const GROWTH = 2

export interface JournalOptions {
  /** receives each value of the file; a value for which it throws is skipped */
  read(value: unknown): void
  /** all values that the next process must read */
  state(): Iterable<unknown>
  /** receives errors of the disk */
  onError(error: unknown): void
}

export class Journal {
  readonly #path: string
  readonly #options: JournalOptions
  #file: FileHandle | undefined
  #queued: string[] = []
  /** lines appended since the last rewrite */
  #appended = 0
  /** lines of the last rewrite */
  #base = 0
  #writing: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined

  private constructor(path: string, options: JournalOptions) {
    this.#path = path
    this.#options = options
  }

  /** Reads the file, or creates it and its directories. Errors: the system's. */
  static async open(path: string, options: JournalOptions): Promise<Journal> {
    const journal = new Journal(path, options)
    await mkdir(dirname(path), { recursive: true })
    for (const line of (await readLines(path)).split('\n')) journal.#read(line)
    await journal.#rewrite()
    return journal
  }

  /** Appends a value. Once the promise resolves, a killed process does not lose it, unless `onError` was called. */
  append(value: unknown): Promise<void> {
    this.#queued.push(JSON.stringify(value))
    if (!this.#next) this.#writing = this.#next = this.#writing.then(() => this.#write())
    return this.#next
  }

  async close(): Promise<void> {
    await this.#writing
    await this.#file?.close()
  }

  #read(line: string): void {
    if (line === '') return
    try {
      this.#options.read(JSON.parse(line))
    } catch {} // an incomplete line, or one of another version
  }

  async #write(): Promise<void> {
    this.#next = undefined
    const lines = this.#queued
    this.#queued = []
    try {
      this.#appended += lines.length
      const grown = this.#appended > Math.max(MIN_LINES, GROWTH * this.#base)
      if (grown || !this.#file) await this.#rewrite()
      else await this.#file.appendFile(textOf(lines))
    } catch (error) {
      await this.#file?.close().catch(() => {})
      this.#file = undefined // the next write is a rewrite
      this.#options.onError(error)
    }
  }

  /** Writes the state to a temporary file, then renames it over the old file. */
  async #rewrite(): Promise<void> {
    const lines = Array.from(this.#options.state(), (value) => JSON.stringify(value))
    const temporary = `${this.#path}.tmp`
    const file = await open(temporary, 'w')
    try {
      await file.appendFile(textOf(lines))
      await file.sync()
      await rename(temporary, this.#path)
    } catch (error) {
      await file.close()
      throw error
    }
    await this.#file?.close()
    this.#file = file
    this.#base = lines.length
    this.#appended = 0
  }
}

const textOf = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('')

async function readLines(path: string): Promise<string> {
  try {
    const bytes = await readFile(path)
    return bytes.length > MAX_SIZE ? '' : bytes.toString('utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}
