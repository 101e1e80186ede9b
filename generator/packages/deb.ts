/* A reader for .deb and .ddeb packages (deb(5)): an ar archive with a compressed tar of the files as a member. */

import { GeneratorError } from '../error.ts'
import { readAr } from './ar.ts'
import type { ArchiveEntry } from './archive-entry.ts'
import { capped, compressionOf, decompress } from './decompress.ts'
import { readTar } from './tar.ts'

/**
 * Reads the files of a package in order; `limit` is the maximum of unpacked bytes. Errors: `invalid_package`,
 * `truncated`, `unsupported_package`, `too_large`.
 */
export async function* readDeb(
  source: AsyncIterable<Uint8Array>,
  limit: number,
): AsyncGenerator<ArchiveEntry> {
  for await (const { name, body } of readAr(source)) {
    if (!/^data\.tar(\.|$)/.test(name)) continue
    const plain = decompress(body, compressionOf(name))
    try {
      yield* readTar(capped(plain, limit, 'the package'))
    } finally {
      plain.destroy()
    }
    return
  }
  throw new GeneratorError('invalid_package', 'the package has no member data.tar')
}
