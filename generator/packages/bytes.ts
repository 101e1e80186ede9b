import type { GeneratorError } from '../error.ts'

/** Takes bytes by number from a source of chunks of any length. It never holds more than was asked for and a chunk. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  readonly #short: () => GeneratorError
  #rest: Buffer = Buffer.alloc(0)
  #position = 0

  /** `short` makes the error for a source that ends before what was asked for. */
  constructor(source: AsyncIterable<Uint8Array>, short: () => GeneratorError) {
    this.#chunks = source[Symbol.asyncIterator]()
    this.#short = short
  }

  /** How many bytes have been taken. */
  get position(): number {
    return this.#position
  }

  /** The next `size` bytes. */
  async take(size: number): Promise<Buffer> {
    return Buffer.concat(await Array.fromAsync(this.stream(size)))
  }

  /** The next `size` bytes, as they come. */
  async *stream(size: number): AsyncGenerator<Buffer> {
    for (let left = size; left > 0; ) {
      const part = await this.#next(left)
      if (!part) throw this.#short()
      left -= part.length
      yield part
    }
  }

  /** Passes over what is left of the first `position` bytes. */
  async skipTo(position: number): Promise<void> {
    for await (const _ of this.stream(position - this.#position));
  }

  /** All that is left, as it comes. */
  async *remaining(): AsyncGenerator<Buffer> {
    for (let part = await this.#next(); part; part = await this.#next()) yield part
  }

  /** The next bytes without taking them: `size`, or what there is. */
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

  /** At most `size` bytes, as they come; undefined at the end. */
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
