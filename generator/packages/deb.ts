/* Debian's packages, .deb and .ddeb (deb(5)): an ar archive, one member of which is a compressed tar of the files. */

import { GeneratorError } from '../error.ts'
import { readAr } from './ar.ts'
import type { ArchiveEntry } from './archive-entry.ts'
import { capped, compressionOf, decompress } from './decompress.ts'
import { readTar } from './tar.ts'

/**
 * Reads the files of a package in their order, whichever order its members have; `limit` is that of all they unpack
 * to, in bytes. Errors: `invalid_package`, `truncated`, `unsupported_package`, `too_large`.
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
  throw new GeneratorError('invalid_package', 'the package has no data.tar')
}
