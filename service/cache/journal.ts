/*
 * What a server remembers by itself, as JSON lines in a file: appended, many in one write, and written anew from what
 * they come to when they are too many. Who is killed loses no line whose append was awaited; a last line that is half
 * is passed over. A disk that fails costs no answer: what it did not take is written with the next.
 *
 * A file is one process's.
 */
import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Bytes of a file that we read. */
const MAX_SIZE = 256 * 1024 * 1024
/** Lines that are appended before the file is written anew, and at least so many times what it would have then. */
const MIN_LINES = 10_000
const GROWTH = 2

export interface JournalOptions {
  /** takes a value of the file; what it throws means that it is none of ours, and is passed over */
  read(value: unknown): void
  /** all values that are to be known the next time */
  state(): Iterable<unknown>
  onError(error: unknown): void
}

export class Journal {
  readonly #path: string
  readonly #options: JournalOptions
  #file: FileHandle | undefined
  #queued: string[] = []
  /** lines that were appended since the file was written anew, and had then */
  #appended = 0
  #base = 0
  #writing: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined

  private constructor(path: string, options: JournalOptions) {
    this.#path = path
    this.#options = options
  }

  /** Reads a file, or begins one, and the directories it is in. Errors: the system's. */
  static async open(path: string, options: JournalOptions): Promise<Journal> {
    const journal = new Journal(path, options)
    await mkdir(dirname(path), { recursive: true })
    for (const line of (await readLines(path)).split('\n')) journal.#read(line)
    await journal.#rewrite()
    return journal
  }

  /** Keeps a value; when it returns, the value outlives the process. */
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
    } catch {} // half a line, or another's
  }

  async #write(): Promise<void> {
    this.#next = undefined
    const lines = this.#queued
    this.#queued = []
    try {
      this.#appended += lines.length
      const many = this.#appended > Math.max(MIN_LINES, GROWTH * this.#base)
      if (many || !this.#file) await this.#rewrite()
      else await this.#file.appendFile(textOf(lines))
    } catch (error) {
      await this.#file?.close().catch(() => {})
      this.#file = undefined // the next write is of all
      this.#options.onError(error)
    }
  }

  /** Writes what the lines come to, beside the file, then in its place. */
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
