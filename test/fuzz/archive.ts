/*
 * Inputs of generator/: packages, archives and repository indexes, valid and mutated. A mutation changes bytes, numbers
 * in text and whole pieces; it knows no format. Checksums are made valid again in most cases, so that a reader gets past
 * them.
 */
import { createHash } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { arOf, cpioEntry, cpioOf, tarOf } from '../helpers/package.ts'
import { headerOf, rpmAround } from '../helpers/rpm.ts'
import type { Random } from './random.ts'

export const ARCHIVE_SORTS = [
  ...(['deb', 'rpm', 'tar', 'cpio', 'packages', 'release'] as const),
  ...(['repomd', 'primary', 'sqlite', 'listing'] as const),
]
export type ArchiveSort = (typeof ARCHIVE_SORTS)[number]

const NAMES = ['./usr/lib/debug/boot/vmlinux-6.1.0-9-amd64', './usr/share/doc/readme', './a']
const long = './'.concat('long/'.repeat(40), 'name')

const tar = await tarOf([
  [NAMES[0]!, Buffer.alloc(3000, 'vmlinux')],
  [NAMES[1]!, 'text'],
  [NAMES[2]!, { linkname: 'usr' }],
  [long, 'a name that needs a pax header'],
  ['./empty', ''],
])
const cpio = cpioOf([
  cpioEntry(NAMES[0]!, Buffer.alloc(3000, 'vmlinux')),
  cpioEntry(NAMES[1]!, 'sum', { magic: '070702', sum: 0x150 }),
  cpioEntry(NAMES[2]!, '', { mode: 0o120777 }),
  cpioEntry('linked', '', { links: 2 }),
])
/** The large-file form: the header of the package has names and sizes. */
const stripped = Buffer.concat([
  cpioEntry(0, Buffer.alloc(3000, 'vmlinux'), { magic: '07070X' }),
  cpioEntry(1, 'text', { magic: '07070X' }),
  cpioEntry('TRAILER!!!', ''),
])
const rpmHeader = (payload: Buffer, compressor: string) =>
  headerOf({
    1028: { int32: [3000, 4] },
    1030: { int16: [0o100644, 0o100644] },
    1035: ['a'.repeat(64), 'b'.repeat(64)],
    1116: { int32: [0, 1] },
    1117: ['vmlinux', 'readme'],
    1118: ['/usr/lib/debug/', '/usr/share/'],
    1124: 'cpio',
    1125: compressor,
    5011: { int32: [8] },
    5092: [createHash('sha256').update(payload).digest('hex')],
    5093: { int32: [8] },
  })

const DIGEST = '0123456789abcdef'.repeat(4)
const stanza = (name: string) =>
  `Package: ${name}\nVersion: 6.1.9-1\nArchitecture: amd64\nFilename: pool/main/l/${name}.deb\nSize: 1234\nSHA256: ${DIGEST}\nDescription: short\n more\n .\n end\n`
const packages = `${stanza('linux-image-6.1.0-9-amd64-dbg')}\n${stanza('bash')}\n${stanza('linux')}`
const release = `Origin: Debian\nSuite: stable\nValid-Until: Sat, 05 Dec 2026 00:00:00 UTC\nAcquire-By-Hash: yes\nSHA256:\n ${DIGEST} 1234 main/binary-amd64/Packages.xz\n ${DIGEST}      99 main/binary-amd64/Packages\n`
const data = (type: string, name: string) =>
  `<data type="${type}"><checksum type="sha256">${DIGEST}</checksum><open-checksum type="sha256">${DIGEST}</open-checksum><location href="repodata/${name}"/><size>100</size><open-size>1000</open-size></data>`
const repomd = `<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm"><revision>1</revision>${data('primary', 'primary.xml.gz')}${data('primary_db', 'primary.sqlite.bz2')}</repomd>`
const entry = (name: string) =>
  `<package type="rpm"><name>${name}</name><arch>x86_64</arch><version epoch="0" ver="5.14.0" rel="1.el9"/><checksum type="sha256" pkgid="YES">${DIGEST}</checksum><summary>a &amp; b &#169; <![CDATA[c]]></summary><size package="1234" installed="1" archive="2"/><location href="Packages/${name}.rpm" xml:base="http://127.0.0.1/repo/os"/><format><rpm:license>GPL</rpm:license></format></package>`
const primary = `<?xml version="1.0" encoding="UTF-8"?>\n<!-- made -->\n<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="2">${entry('kernel-debuginfo')}${entry('bash')}</metadata>`
const listing = `<html><head><title>Index</title></head><body><pre><a href="../">../</a>\n<a href="kernel-debuginfo-5.14.0-1.el9.x86_64.rpm">k</a> 01-Jan 1M\n<a href='/repo/Packages/bash-5-1.x86_64.rpm'>b</a><a href=http://127.0.0.1/repo/a%2Fb.rpm>&lt;</a></pre></body></html>`

function sqlite(): Buffer {
  const file = join(tmpdir(), `fuzz-${process.pid}-seed.sqlite`)
  rmSync(file, { force: true })
  const database = new DatabaseSync(file)
  const columns = 'name, arch, epoch, version, release, location_href, location_base, checksum_type'
  database.exec(`PRAGMA page_size = 512; CREATE TABLE packages (${columns}, pkgId, size_package)`)
  const row = database.prepare('INSERT INTO packages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  for (const name of ['kernel-debuginfo', 'bash', 'kernel-debuginfo-common'])
    row.run(name, 'x86_64', '0', '5.14.0', '1.el9', `${name}.rpm`, null, 'sha256', DIGEST, 1234)
  database.close()
  const bytes = readFileSync(file)
  rmSync(file)
  return bytes
}

/** The valid inputs; those of deb and rpm are the parts that are packed after a mutation. */
const INPUTS: Readonly<Record<ArchiveSort, Buffer>> = {
  deb: tar,
  rpm: cpio,
  tar,
  cpio,
  packages: Buffer.from(packages),
  release: Buffer.from(release),
  repomd: Buffer.from(repomd),
  primary: Buffer.from(primary),
  sqlite: sqlite(),
  listing: Buffer.from(listing),
}

/** Pieces that mean something to a parser. */
const TOKENS = [
  ...['\0', '\n\n', '\n ', ': ', '&', '&#0;', '&#x10ffff;', '&a;', '<', '>', '"', "'", ']]>'],
  ...['<![CDATA[', '<!DOCTYPE a [<!ENTITY a "b">]>', '<?xml?>', '<!--', '-->', '</metadata>'],
  ...['TRAILER!!!', '07070X', '070702', '!<arch>\n', '`\n', 'ustar', '../', '//', 'http://', '%'],
  ...['-1', '1e9', '0x10', '99999999999', 'NaN', '\ufffd', '\ud800', 'é'.repeat(8), '\u202e'],
  ...['data.tar.zst', 'data.tar.gz', 'path=', 'size=', 'GNU.sparse.size=', 'hdrcharset='],
]

/** A mutated input of this sort; the seed's own numbers decide everything. */
export function mutatedArchive(random: Random, sort: ArchiveSort): Uint8Array {
  const content = mutated(random, INPUTS[sort])
  switch (sort) {
    case 'tar':
      return random.once(4) ? content : withTarSums(content)
    case 'deb':
      return debAround(random, content)
    case 'rpm':
      return rpmWith(random, content)
    default:
      return content
  }
}

function debAround(random: Random, content: Buffer): Buffer {
  const inner = random.once(4) ? content : withTarSums(random.once(3) ? tar : content)
  const [name, packed] = random.pick([
    ['data.tar', inner],
    ['data.tar.gz', gzipSync(inner, { level: 1 })],
    ['data.tar.zst', zstdCompressSync(inner)],
  ] as const)
  const deb = arOf([
    ['debian-binary', Buffer.from('2.0\n')],
    ['control.tar', tar.subarray(0, 1024)],
    [name, packed],
  ])
  return random.once(2) ? mutated(random, deb) : deb
}

function rpmWith(random: Random, content: Buffer): Buffer {
  const files = random.pick([content, cpio, stripped, mutated(random, stripped)])
  const [compressor, payload] = random.pick([
    ['gzip', gzipSync(files, { level: 1 })],
    ['zstd', zstdCompressSync(files)],
  ] as const)
  const header = rpmHeader(payload, compressor)
  const intro = header.subarray(0, 16)
  // the intro has the lengths: with other ones nothing else would be read
  const changed = random.once(4)
    ? mutated(random, header)
    : Buffer.concat([intro, mutated(random, header.subarray(16))]).subarray(0, header.length)
  const short = Buffer.alloc(Math.max(0, header.length - changed.length))
  const rpm = rpmAround(random.once(3) ? header : Buffer.concat([changed, short]), payload)
  return random.once(4) ? mutated(random, rpm) : rpm
}

/** Changes bytes, numbers in text, and whole pieces. */
export function mutated(random: Random, input: Buffer): Buffer {
  let bytes: Buffer = Buffer.from(input)
  for (let n = 1 + random.below(4); n > 0; n--) bytes = edited(random, bytes)
  return bytes
}

function edited(random: Random, bytes: Buffer): Buffer {
  const at = random.below(random.once(2) ? bytes.length + 1 : Math.min(bytes.length + 1, 600))
  const length = random.below(random.once(2) ? 8 : 600)
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)]
  switch (random.below(8)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << random.below(8)
      return bytes
    case 1:
      if (at < bytes.length) bytes[at] = random.pick([0, 0x20, 0x30, 0x37, 0x66, 0x7f, 0x80, 0xff])
      return bytes
    case 2:
      return Buffer.concat([before, after.subarray(length)])
    case 3:
      return Buffer.concat([before, Buffer.from(random.pick(TOKENS)), after])
    case 4:
      return renumbered(random, bytes, at)
    case 5:
      return repeated(random, bytes, at, length)
    case 6: {
      const token = Buffer.from(random.pick(TOKENS))
      return Buffer.concat([before, token, after.subarray(token.length)])
    }
    default:
      return random.once(4) ? Buffer.from(before) : bytes
  }
}

/** Replaces the next run of digits, in its width or not. */
function renumbered(random: Random, bytes: Buffer, at: number): Buffer {
  const found = /[0-9a-f]{1,12}/i.exec(bytes.toString('latin1', at, at + 400))
  if (!found) return bytes
  const [digits] = found
  const number = random.pick([
    '0',
    '1',
    '7777777777777',
    'ffffffffffff',
    '9999999999',
    '2147483648',
  ])
  const text = random.once(3) ? number : number.slice(0, digits.length).padStart(digits.length, '0')
  const start = at + found.index
  return Buffer.concat([
    bytes.subarray(0, start),
    Buffer.from(text),
    bytes.subarray(start + digits.length),
  ])
}

/** Repeats a piece: usually a few times, rarely up to half a megabyte. */
function repeated(random: Random, bytes: Buffer, at: number, length: number): Buffer {
  const piece = bytes.subarray(at, at + length)
  const most = random.once(64) ? 1 << 19 : 1 << 12
  const times = piece.length === 0 ? 0 : random.below(Math.ceil(most / piece.length))
  const copies = Array.from({ length: times }, () => piece)
  return Buffer.concat([bytes.subarray(0, at), ...copies, bytes.subarray(at)])
}

/** A copy of a tar with correct sums of its headers, as far as they follow from the sizes. */
function withTarSums(input: Buffer): Buffer {
  const bytes = Buffer.from(input)
  for (let at = 0; at + 512 <= bytes.length; ) {
    const header = bytes.subarray(at, at + 512)
    header.fill(' ', 148, 156)
    const sum = header.reduce((all, byte) => all + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
    const size = Number.parseInt(header.toString('latin1', 124, 136), 8)
    at += 512 + (Number.isSafeInteger(size) && size > 0 ? Math.ceil(size / 512) * 512 : 0)
  }
  return bytes
}
