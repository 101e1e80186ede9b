/*
 * cpio archives as rpm writes them (cpio(5), "New ASCII Format", and lib/cpio.c of rpm): headers of hexadecimal
 * digits, names and bodies, each padded to 4 bytes, up to an entry named TRAILER!!!. Sizes there end at 4 GB, so a
 * package with a larger file has another form, whose headers are no more than an index into the files that the
 * package's own header lists.
 */

import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from './archive-entry.ts'
import { ByteReader } from './bytes.ts'

/** What a package's header says of a file. */
export type ListedFile = Pick<ArchiveEntry, 'name' | 'regular' | 'size'>

const NEWC = '070701'
/** newc, with a sum of the body's bytes */
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
 * Reads the files of an archive in their order; `listed` gives those of the large-file form by their index. What is
 * left of a body is passed over, and a sum compared where one is read to its end. Errors: `invalid_package`.
 */
export async function* readCpio(
  source: AsyncIterable<Uint8Array>,
  listed: (index: number) => ListedFile | undefined = () => undefined,
): AsyncGenerator<ArchiveEntry> {
  const bytes = new ByteReader(source, () => corrupt('ends in the middle of a file'))
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
    yield { name, regular, size, body: sum === undefined ? body : summed(body, sum) }
    await bytes.skipTo(end)
    await align()
  }
}

/** What follows the magic of newc: 13 numbers of 8 digits, and the name. */
async function readHeader(bytes: ByteReader, magic: string): Promise<CpioHeader> {
  if (magic !== NEWC && magic !== CRC) throw corrupt('has a header of no form we know')
  const numbers = await bytes.take(13 * 8)
  const number = (index: number) => parseHex(numbers.subarray(index * 8, index * 8 + 8))
  const [mode, links, size, nameSize, sum] = [1, 4, 6, 11, 12].map(number) as Numbers
  if (nameSize > NAME_MAX) throw corrupt(`has a name of ${nameSize} bytes`)
  const text = (await bytes.take(nameSize)).toString()
  const name = text.slice(0, -1)
  if (!text.endsWith('\0') || name.includes('\0')) throw corrupt('has a name that does not end')
  // the last of hard links has the bytes of all
  const regular = (mode & S_IFMT) === S_IFREG && (links < 2 || size > 0)
  return { name, regular, size, ...(magic === CRC && regular && { sum }) }
}

type Numbers = [mode: number, links: number, size: number, nameSize: number, sum: number]

/** What follows the magic of the large-file form: the file's index. */
async function readIndex(
  bytes: ByteReader,
  listed: (index: number) => ListedFile | undefined,
): Promise<CpioHeader> {
  const index = parseHex(await bytes.take(8))
  const file = listed(index)
  if (!file) throw corrupt(`has file ${index}, which the package does not list`)
  return file
}

function parseHex(digits: Buffer): number {
  const text = digits.toString('latin1')
  if (!/^[0-9a-f]{8}$/i.test(text)) throw corrupt('has a header that is no number')
  return Number.parseInt(text, 16)
}

/** The bytes, and an error at their end where they have another sum. */
async function* summed(body: AsyncIterable<Buffer>, wanted: number): AsyncGenerator<Buffer> {
  let sum = 0
  for await (const piece of body) {
    for (const byte of piece) sum = (sum + byte) >>> 0
    yield piece
  }
  if (sum !== wanted) throw corrupt('has a file whose bytes have another sum')
}

const corrupt = (what: string): GeneratorError =>
  new GeneratorError('invalid_package', `the cpio archive ${what}`)
