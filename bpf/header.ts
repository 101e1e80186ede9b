/*
 * The header of BTF and the sections that it points to:
 *
 *     header | types | layout (optional) | strings
 *
 * The magic tells the byte order. A header has 24 bytes, or 32 with a layout section: one record per kind, which lets
 * readers skip kinds that they do not know (pahole's `layout` feature of 2026). The checks are those of libbpf
 * (src/btf.c `btf_parse_hdr`, `btf_parse_str_sec`, `btf_parse_layout_sec`); version and flags are checked as in the
 * kernel.
 */

import { type ByteOrder, viewOf } from './bytes.ts'
import { BtfError } from './error.ts'

export const BTF_MAGIC = 0xeb9f
export const BTF_VERSION = 1
export const BTF_HEADER_SIZE = 24
const BTF_HEADER_WITH_LAYOUT_SIZE = 32

/** The extents of the sections, in bytes from the start of the BTF. */
export interface BtfHeader {
  readonly byteOrder: ByteOrder
  readonly headerSize: number
  readonly types: Extent
  readonly layout: Extent
  readonly strings: Extent
}

export interface Extent {
  readonly start: number
  readonly end: number
}

/** The byte order that the magic tells; undefined without BTF's magic. */
export function btfByteOrder(bytes: Uint8Array): ByteOrder | undefined {
  if (bytes[0] === 0x9f && bytes[1] === 0xeb) return 'little'
  if (bytes[0] === 0xeb && bytes[1] === 0x9f) return 'big'
  return undefined
}

/** Reads and checks the header. Errors: `invalid_header`, `truncated`, `unsupported`. */
export function parseHeader(bytes: Uint8Array): BtfHeader {
  const byteOrder = btfByteOrder(bytes)
  if (!byteOrder) throw new BtfError('invalid_header', 'not BTF: the magic 0xeb9f is missing', 0)
  if (bytes.length < BTF_HEADER_SIZE)
    throw new BtfError('truncated', 'the BTF header is cut off', 0)
  const view = viewOf(bytes)
  const little = byteOrder === 'little'
  if (bytes[2] !== BTF_VERSION)
    throw new BtfError(
      'unsupported',
      `unsupported BTF version ${bytes[2]}: expected ${BTF_VERSION}`,
      2,
    )
  if (bytes[3] !== 0)
    throw new BtfError('unsupported', `unsupported BTF flags ${bytes[3]}: expected 0`, 3)

  const headerSize = view.getUint32(4, little)
  if (headerSize < BTF_HEADER_SIZE) {
    throw new BtfError(
      'invalid_header',
      `invalid BTF header size ${headerSize}: expected at least ${BTF_HEADER_SIZE}`,
      4,
    )
  }
  if (headerSize > bytes.length) throw new BtfError('truncated', 'the BTF header is cut off', 4)
  const hasLayout = headerSize >= BTF_HEADER_WITH_LAYOUT_SIZE
  const knownSize = hasLayout ? BTF_HEADER_WITH_LAYOUT_SIZE : BTF_HEADER_SIZE
  if (bytes.subarray(knownSize, headerSize).some((byte) => byte !== 0)) {
    throw new BtfError('unsupported', 'the BTF header has fields of a later version', knownSize)
  }

  const extent = (at: number): Extent => {
    const start = headerSize + view.getUint32(at, little)
    return { start, end: start + view.getUint32(at + 4, little) }
  }
  const types = extent(8)
  const strings = extent(16)
  const layout = hasLayout ? extent(24) : { start: types.end, end: types.end }
  checkOrder(bytes, headerSize, types, layout, strings)
  return { byteOrder, headerSize, types, layout, strings }
}

function checkOrder(
  bytes: Uint8Array,
  headerSize: number,
  types: Extent,
  layout: Extent,
  strings: Extent,
): void {
  if (strings.end > bytes.length) {
    throw new BtfError(
      'truncated',
      `the BTF is cut off: ${strings.end} bytes expected, ${bytes.length} found`,
      20,
    )
  }
  if ((types.start - headerSize) % 4 !== 0) {
    throw new BtfError('invalid_header', 'the type section is not aligned to 4 bytes', 8)
  }
  if (types.end > strings.start) {
    throw new BtfError('invalid_header', 'the type and string sections overlap', 16)
  }
  const size = layout.end - layout.start
  if (size === 0) return
  if ((layout.start - headerSize) % 4 !== 0 || size % 4 !== 0) {
    throw new BtfError('invalid_header', 'the layout section is not aligned to 4 bytes', 24)
  }
  if (layout.start < types.end || layout.end > strings.start) {
    throw new BtfError('invalid_header', 'the layout section overlaps another section', 24)
  }
}

/** Checks that a string section ends with NUL and, without a base, begins with the empty string. Errors: `invalid_strings`. */
export function checkStrings(strings: Uint8Array, start: number, hasBase: boolean): void {
  if (strings.length === 0) {
    if (hasBase) return
    throw new BtfError('invalid_strings', 'the string section is empty', start)
  }
  if (strings[strings.length - 1] !== 0) {
    throw new BtfError(
      'invalid_strings',
      'the string section does not end with NUL',
      start + strings.length,
    )
  }
  if (!hasBase && strings[0] !== 0) {
    throw new BtfError(
      'invalid_strings',
      'the string section does not begin with the empty string: split BTF needs its base',
      start,
    )
  }
}
