/* A reader that takes given numbers of bytes from a stream of chunks. */
import type { GeneratorError } from '../error.ts'

/** Reads bytes from a source of chunks of any length. It holds at most the requested bytes and one chunk. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  readonly #truncated: () => GeneratorError
  #rest: Buffer = Buffer.alloc(0)
  #position = 0

  /** `truncated` makes the error for a source that ends too early. */
  constructor(source: AsyncIterable<Uint8Array>, truncated: () => GeneratorError) {
    this.#chunks = source[Symbol.asyncIterator]()
    this.#truncated = truncated
  }

  /** The number of bytes that were read. */
  get position(): number {
    return this.#position
  }

  /** Reads the next `size` bytes. */
  async take(size: number): Promise<Buffer> {
    return Buffer.concat(await Array.fromAsync(this.stream(size)))
  }

  /** Reads the next `size` bytes in pieces, as they arrive. */
  async *stream(size: number): AsyncGenerator<Buffer> {
    for (let left = size; left > 0; ) {
      const part = await this.#next(left)
      if (!part) throw this.#truncated()
      left -= part.length
      yield part
    }
  }

  /** Skips to a position from the start of the source. */
  async skipTo(position: number): Promise<void> {
    for await (const _ of this.stream(position - this.#position));
  }

  /** Reads all remaining bytes in pieces, as they arrive. */
  async *remaining(): AsyncGenerator<Buffer> {
    for (let part = await this.#next(); part; part = await this.#next()) yield part
  }

  /** Returns the next `size` bytes, or fewer at the end, without reading past them. */
  async peek(size: number): Promise<Buffer> {
    while (this.#rest.length < size) {
      const chunk = await this.#pull()
      if (!chunk) break
      this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    }
    return this.#rest.subarray(0, size)
  }

  async atEnd(): Promise<boolean> {
    return (await this.peek(1)).length === 0
  }

  /** Reads at most `size` bytes; undefined at the end. */
  async #next(size = Number.POSITIVE_INFINITY): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const chunk = await this.#pull()
      if (!chunk) return undefined
      this.#rest = chunk
    }
    const part = this.#rest.subarray(0, size)
    this.#rest = this.#rest.subarray(part.length)
    this.#position += part.length
    return part
  }

  async #pull(): Promise<Buffer | undefined> {
    const { done, value } = await this.#chunks.next()
    return done ? undefined : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  }
}
