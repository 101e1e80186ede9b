/*
 * ar archives, as dpkg reads them (ar(5) in the common format, without long names): a stream of members, each with
 * its bytes to be read before the next one is asked for.
 */
import { GeneratorError } from './error.ts'

export interface ArMember {
  name: string
  /** bytes */
  size: number
  body: AsyncGenerator<Buffer>
}

const MAGIC = '!<arch>\n'
const HEADER = 60

/** Reads the members of an archive. What is left of a body is passed over. Errors: `corrupt_package`, `truncated`. */
export async function* readAr(source: AsyncIterable<Uint8Array>): AsyncGenerator<ArMember> {
  const bytes = new ByteReader(source)
  if ((await bytes.take(MAGIC.length))?.toString('latin1') !== MAGIC) {
    throw new GeneratorError('corrupt_package', 'not an ar archive')
  }
  for (;;) {
    const header = await bytes.take(HEADER)
    if (!header) return
    const { name, size } = parseHeader(header)
    const body = bytes.stream(size)
    yield { name, size, body }
    for await (const _ of body); // what the caller left
    if (size % 2 === 1) await bytes.take(1)
  }
}

/** Reads `struct ar_hdr`: name, mtime, uid, gid, mode, size in decimal, and a magic. */
function parseHeader(header: Buffer): { name: string; size: number } {
  const text = header.toString('latin1')
  const size = /^(\d{1,10}) *$/.exec(text.slice(48, 58))?.[1]
  if (size === undefined || text.slice(58) !== '`\n') {
    throw new GeneratorError('corrupt_package', 'the ar archive has a member with a bad header')
  }
  return { name: text.slice(0, 16).trimEnd().replace(/\/$/, ''), size: Number(size) }
}

/** Takes bytes by number from a source of chunks of any length. */
class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  #rest: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]()
  }

  /** The next `size` bytes; undefined where the source is at its end. */
  async take(size: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = []
    let length = 0
    while (length < size) {
      const part = await this.#next(size - length)
      if (!part && length === 0) return undefined
      if (!part)
        throw new GeneratorError('truncated', 'the ar archive ends in the middle of a member')
      parts.push(part)
      length += part.length
    }
    return Buffer.concat(parts)
  }

  async *stream(size: number): AsyncGenerator<Buffer> {
    for (let left = size; left > 0; ) {
      const part = await this.#next(left)
      if (!part)
        throw new GeneratorError('truncated', 'the ar archive ends in the middle of a member')
      left -= part.length
      yield part
    }
  }

  /** At most `size` bytes, as they come. */
  async #next(size: number): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#chunks.next()
      if (done) return undefined
      this.#rest = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    }
    const part = this.#rest.subarray(0, size)
    this.#rest = this.#rest.subarray(part.length)
    return part
  }
}
