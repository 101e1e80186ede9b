/* Sizes in bytes as people write them: 4096, 64K, 256M, 3G. K, M, G and T are powers of 1024. */

const UNITS = ['', 'K', 'M', 'G', 'T']

/** The bytes that a text such as `256M` stands for; undefined for a text that is not a size. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit = ''] = /^(\d{1,15})([KMGT]?)$/i.exec(text) ?? []
  const bytes = Number(digits) * 1024 ** UNITS.indexOf(unit.toUpperCase())
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** A number of bytes in the largest unit that leaves no fraction. */
export function formatSize(bytes: number): string {
  let [size, unit] = [bytes, 0]
  while (size > 0 && size % 1024 === 0 && unit < UNITS.length - 1) {
    size /= 1024
    unit++
  }
  return `${size}${UNITS[unit]}`
}
