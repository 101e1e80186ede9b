/* tar archives, a stream of files. tar-stream knows the format; here is what its errors mean to us. */
import { pipeline } from 'node:stream/promises'
import { extract } from 'tar-stream'
import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from './archive-entry.ts'

/** Reads the files of an archive in their order. Errors: `invalid_package`, and those of the source. */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<ArchiveEntry> {
  const tar = extract()
  const feeding = pipeline(source, tar)
  feeding.catch(() => {}) // whoever reads the entries hears of it
  try {
    for await (const entry of tar) {
      const { name, type, size = 0, linkname } = entry.header
      const link = type === 'link' && linkname ? { link: linkname } : {}
      // streamx's types do not say that its streams can be iterated
      const body = entry as unknown as AsyncIterable<Uint8Array>
      yield { name, regular: type === 'file', size, body, ...link }
      entry.resume() // what the caller left
    }
    await feeding
  } catch (cause) {
    if (cause instanceof GeneratorError) throw cause
    const message = `its tar does not read: ${(cause as Error).message}`
    throw new GeneratorError('invalid_package', message, { cause })
  } finally {
    tar.destroy()
  }
}
