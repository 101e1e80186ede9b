/*
 * A reader for cpio archives as rpm writes them (cpio(5), "New ASCII Format", and lib/cpio.c of rpm): headers of
 * hexadecimal digits, names and bodies, each padded to 4 bytes, up to an entry named TRAILER!!!. This form limits sizes
 * to 4 GB. Packages with larger files use another form, in which a header is only an index into the list of files in
 * the package's own header.
 */

import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from './archive-entry.ts'
import { ByteReader } from './bytes.ts'

/** A file in the list of a package's header. */
export type ListedFile = Pick<ArchiveEntry, 'name' | 'regular' | 'size'>

const NEWC = '070701'
/** newc with a sum of the body's bytes */
const CRC = '070702'
/** rpm's large-file form */
const STRIPPED = '07070X'

const TRAILER = 'TRAILER!!!'
/** Bytes of a name with its NUL: PATH_MAX. */
const NAME_MAX = 4096

const S_IFMT = 0o170000
const S_IFREG = 0o100000

type CpioHeader = ListedFile & { sum?: number }

/**
 * Reads the files of an archive in order; `listed` returns those of the large-file form by index. Unread bytes of a
 * body are skipped. The sum of a body is checked if it is read to its end. Errors: `invalid_package`.
 */
export async function* readCpio(
  source: AsyncIterable<Uint8Array>,
  listed: (index: number) => ListedFile | undefined = () => undefined,
): AsyncGenerator<ArchiveEntry> {
  const bytes = new ByteReader(source, () => invalidCpio('ends in the middle of a file'))
  const align = () => bytes.skipTo(Math.ceil(bytes.position / 4) * 4)
  for (;;) {
    const magic = (await bytes.take(6)).toString('latin1')
    const header =
      magic === STRIPPED ? await readIndex(bytes, listed) : await readHeader(bytes, magic)
    await align()
    if (header.name === TRAILER) return
    const { name, regular, size, sum } = header
    const end = bytes.position + size
    const body = bytes.stream(size)
    yield { name, regular, size, body: sum === undefined ? body : withSum(body, sum) }
    await bytes.skipTo(end)
    await align()
  }
}

/** Reads the rest of a newc header after the magic: 13 numbers of 8 digits, and the name. */
async function readHeader(bytes: ByteReader, magic: string): Promise<CpioHeader> {
  if (magic !== NEWC && magic !== CRC)
    throw invalidCpio(`has a header with the unknown magic ${JSON.stringify(magic)}`)
  const numbers = await bytes.take(13 * 8)
  const number = (index: number) => parseHex(numbers.subarray(index * 8, index * 8 + 8))
  const [mode, links, size, nameSize, sum] = [1, 4, 6, 11, 12].map(number) as Numbers
  if (nameSize > NAME_MAX)
    throw invalidCpio(`has a name of ${nameSize} bytes, more than ${NAME_MAX}`)
  const text = (await bytes.take(nameSize)).toString()
  const name = text.slice(0, -1)
  if (!text.endsWith('\0') || name.includes('\0'))
    throw invalidCpio('has a name that does not end with NUL')
  // Of several hard links, the last one has the bytes.
  const regular = (mode & S_IFMT) === S_IFREG && (links < 2 || size > 0)
  return { name, regular, size, ...(magic === CRC && regular && { sum }) }
}

type Numbers = [mode: number, links: number, size: number, nameSize: number, sum: number]

/** Reads the rest of a header of the large-file form after the magic: the file's index. */
async function readIndex(
  bytes: ByteReader,
  listed: (index: number) => ListedFile | undefined,
): Promise<CpioHeader> {
  const index = parseHex(await bytes.take(8))
  const file = listed(index)
  if (!file) throw invalidCpio(`has file ${index}, which the package's header does not list`)
  return file
}

function parseHex(digits: Buffer): number {
  const text = digits.toString('latin1')
  if (!/^[0-9a-f]{8}$/i.test(text))
    throw invalidCpio(`has an invalid number ${JSON.stringify(text)} in a header`)
  return Number.parseInt(text, 16)
}

/** Passes the bytes on, and fails at their end if they do not have this sum. */
async function* withSum(body: AsyncIterable<Buffer>, expected: number): AsyncGenerator<Buffer> {
  let sum = 0
  for await (const piece of body) {
    for (const byte of piece) sum = (sum + byte) >>> 0
    yield piece
  }
  if (sum !== expected) throw invalidCpio(`has a file with the sum ${sum}, expected ${expected}`)
}

const invalidCpio = (what: string): GeneratorError =>
  new GeneratorError('invalid_package', `the cpio archive ${what}`)
