/* A reader for tar archives: a stream of files. tar-stream parses the format; its errors become ours. */
import { pipeline } from 'node:stream/promises'
import { extract } from 'tar-stream'
import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from './archive-entry.ts'

/**
 * Reads the files of an archive in order. Unread bytes of a body are skipped. Errors, also of the bodies:
 * `invalid_package`; those of the source.
 */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<ArchiveEntry> {
  const tar = extract()
  const feeding = pipeline(source, tar)
  feeding.catch(() => {}) // the reader of the entries sees the error
  try {
    for await (const entry of tar) {
      const { name, type, linkname } = entry.header
      const size = sizeOf(entry.header)
      const link = type === 'link' && linkname ? { link: linkname } : {}
      // The types of streamx lack that its streams are iterable.
      const body = bodyOf(entry as unknown as AsyncIterable<Uint8Array>)
      yield { name, regular: type === 'file', size, body, ...link }
      entry.resume() // skips bytes that the caller did not read
    }
    await feeding
  } catch (cause) {
    throw invalidTar(cause)
  } finally {
    tar.destroy()
  }
}

/** The size of an entry, in bytes. tar-stream gives null for a size that is not a number, and then waits forever. */
function sizeOf({ size = 0 }: { size?: number | null }): number {
  if (size === null) throw new Error('the size of an entry is not a number')
  return size
}

/** The bytes of an entry. A reader that stops early leaves the entry open: closing it would end the whole archive. */
async function* bodyOf(entry: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const bytes = entry[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { value, done } = await bytes.next()
      if (done) return
      yield value
    }
  } catch (cause) {
    throw invalidTar(cause)
  }
}

function invalidTar(cause: unknown): GeneratorError {
  if (cause instanceof GeneratorError) return cause
  const message = `invalid tar archive: ${(cause as Error).message}`
  return new GeneratorError('invalid_package', message, { cause })
}
