/*
 * A reader for ar archives as dpkg reads them (ar(5), the common format without long names): a stream of members. The
 * bytes of a member must be read before the next member is requested.
 */

import { GeneratorError } from '../error.ts'
import { ByteReader } from './bytes.ts'

export interface ArMember {
  name: string
  /** bytes */
  size: number
  body: AsyncGenerator<Buffer>
}

const MAGIC = '!<arch>\n'
const HEADER = 60

/** Reads the members of an archive. Unread bytes of a body are skipped. Errors: `invalid_package`, `truncated`. */
export async function* readAr(source: AsyncIterable<Uint8Array>): AsyncGenerator<ArMember> {
  const bytes = new ByteReader(source, () => {
    return new GeneratorError('truncated', 'the ar archive ends in the middle of a member')
  })
  if ((await bytes.take(MAGIC.length)).toString('latin1') !== MAGIC) {
    throw new GeneratorError('invalid_package', 'the file is not an ar archive')
  }
  while (!(await bytes.atEnd())) {
    const { name, size } = parseHeader(await bytes.take(HEADER))
    const end = bytes.position + size
    yield { name, size, body: bytes.stream(size) }
    await bytes.skipTo(end) // bytes that the caller did not read
    if (size % 2 === 1 && !(await bytes.atEnd())) await bytes.take(1)
  }
}

/** Parses `struct ar_hdr`: name, mtime, uid, gid, mode, size in decimal, and a magic. */
function parseHeader(header: Buffer): { name: string; size: number } {
  const text = header.toString('latin1')
  const size = /^(\d{1,10}) *$/.exec(text.slice(48, 58))?.[1]
  if (size === undefined || text.slice(58) !== '`\n') {
    throw new GeneratorError(
      'invalid_package',
      'the ar archive has a member with an invalid header',
    )
  }
  return { name: text.slice(0, 16).trimEnd().replace(/\/$/, ''), size: Number(size) }
}
