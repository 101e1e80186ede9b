/*
 * A picture of a struct's layout, to scale: a row of the picture is a cache line, or more where the struct is large. Each
 * member is an outline over its bytes, which may begin in one row and end in another. SVG, made of numbers and escaped
 * names, without styles of its own: classes give the colours.
 */
import type { ListedMember, TypeListing } from '../../bpf/index.ts'

/** Bytes of a cache line, as pahole takes them. */
export const CACHE_LINE = 64
/** Rows and members of a picture. */
const MAX_ROWS = 96
const MAX_SHAPES = 700

const [LEFT, TOP, WIDTH, ROW] = [58, 6, 640, 17] as const
/** Width of a character of a label. */
const CHARACTER = 5.5

export interface LayoutPicture {
  readonly svg: string
  /** bytes of one row */
  readonly rowBytes: number
}

interface Shape {
  readonly path: string
  /** bits */
  readonly offset: number
  readonly bits: number
  readonly className: string
}

/** Draws a listing; undefined for types without members, and for those with too many. */
export function drawLayout(listing: TypeListing): LayoutPicture | undefined {
  const { size } = listing
  const shapes = shapesOf(listing)
  if (!size || shapes.length < 2 || shapes.length > MAX_SHAPES) return undefined
  let rowBytes = CACHE_LINE
  while (size / rowBytes > MAX_ROWS) rowBytes *= 2
  // a small struct gets wide bytes
  if (size <= 16) rowBytes = 16
  else if (size <= 32) rowBytes = 32
  const rows = Math.ceil(size / rowBytes)
  const scale = WIDTH / (rowBytes * 8)
  const height = TOP + rows * ROW + 4
  const parts: string[] = []
  for (let row = 0; row < rows; row++) {
    const y = TOP + row * ROW
    parts.push(
      `<text class="axis" x="${LEFT - 6}" y="${y + 12}" text-anchor="end">${row * rowBytes}</text>`,
    )
  }
  parts.push(`<path class="back" d="${outline(0, size * 8, rowBytes * 8, scale)}"/>`)
  for (const shape of shapes) parts.push(drawn(shape, rowBytes * 8, scale))
  const label = `Layout of ${listing.kind} ${listing.name}: ${size} bytes in rows of ${rowBytes}`
  return {
    rowBytes,
    svg: `<svg viewBox="0 0 ${LEFT + WIDTH + 4} ${height}" role="group" aria-label="${escapeXml(label)}">${parts.join('')}</svg>`,
  }
}

/** The outermost named members and the holes between them. Members of anonymous unions share their bytes. */
function shapesOf({ lines }: TypeListing): Shape[] {
  const shapes: Shape[] = []
  let end = 0
  for (const line of lines) {
    if (line.is === 'hole' || line.is === 'padding') {
      if (line.offset >= end)
        shapes.push({ path: '', offset: line.offset, bits: line.size * 8, className: 'hole' })
      end = Math.max(end, line.offset + line.size * 8)
    } else if (line.is === 'member') {
      const bits = line.bits || line.size * 8
      // what overlaps with what was drawn is another member of a union
      if (bits === 0 || line.offset < end) continue
      shapes.push({ path: line.path, offset: line.offset, bits, className: classOf(line) })
      end = line.offset + bits
    }
  }
  return shapes
}

const CLASSES: Record<string, string> = {
  INT: 'int',
  PTR: 'ptr',
  STRUCT: 'struct',
  UNION: 'union',
  ARRAY: 'array',
  ENUM: 'enum',
  ENUM64: 'enum',
}

/** The class of a member's colour. */
export const classOf = ({ kind }: Pick<ListedMember, 'kind'>): string => CLASSES[kind] ?? 'other'

function drawn({ path, offset, bits, className }: Shape, rowBits: number, scale: number): string {
  const [amount, unit] = bits % 8 === 0 ? [bits / 8, 'byte'] : [bits, 'bit']
  const place = `${placeOf(offset)}, ${amount} ${unit}${amount === 1 ? '' : 's'}`
  const d = outline(offset, offset + bits, rowBits, scale)
  const shape = `<path class="k-${className}" d="${d}"/>`
  if (path === '') return `<g><title>hole at ${place}</title>${shape}</g>`
  const name = escapeXml(path)
  const start = offset % rowBits
  const first = Math.min(bits, rowBits - start)
  const row = Math.floor(offset / rowBits)
  // the label stands in the widest of the first two rows
  const second = Math.min(bits - first, rowBits)
  const [x, width, y] =
    second > first ? [LEFT, second * scale, row + 1] : [LEFT + start * scale, first * scale, row]
  const room = Math.floor((width - 5) / CHARACTER)
  const short = path.length <= room ? path : room >= 5 ? `${path.slice(0, room - 1)}…` : ''
  const label = short
    ? `<text x="${round(x + 3)}" y="${TOP + y * ROW + 12}">${escapeXml(short)}</text>`
    : ''
  return `<a href="#${anchorOf(path)}"><title>${name} at ${place}</title>${shape}${label}</a>`
}

/** The outline of bits `from` to `to`, in rows. */
function outline(from: number, to: number, rowBits: number, scale: number): string {
  const [firstRow, lastRow] = [Math.floor(from / rowBits), Math.floor((to - 1) / rowBits)]
  const x = (bit: number) => round(LEFT + bit * scale)
  const y = (row: number) => TOP + row * ROW
  const [start, end] = [x(from - firstRow * rowBits), x(to - lastRow * rowBits)]
  const [left, right] = [x(0), x(rowBits)]
  if (firstRow === lastRow) return `M${start} ${y(firstRow)}H${end}v${ROW}H${start}z`
  if (lastRow === firstRow + 1 && end <= start)
    return `M${start} ${y(firstRow)}H${right}v${ROW}H${start}zM${left} ${y(lastRow)}H${end}v${ROW}H${left}z`
  return `M${start} ${y(firstRow)}H${right}V${y(lastRow)}H${end}V${y(lastRow + 1)}H${left}V${y(firstRow + 1)}H${start}z`
}

const round = (value: number): number => Math.round(value * 10) / 10

/** An offset in bits as `byte` or `byte:bit`. */
export const placeOf = (bits: number): string =>
  bits % 8 === 0 ? `${bits / 8}` : `${Math.floor(bits / 8)}:${bits % 8}`

/** The id of a member's row in the page: letters, digits and points only. */
export const anchorOf = (path: string): string => `m-${path.replace(/[^\w.]/g, '_')}`

const escapeXml = (text: string): string =>
  text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: XML has none of these
    .replace(/[\x00-\x1f\x7f]/g, '?')
    .replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
