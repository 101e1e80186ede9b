/* Hand-made BTF, for tests of BTF that no compiler writes. */

/**
 * Builds BTF from the words of the type section, the strings, and more words of the header: offset and
 * length of the layout section, which then is the end of `words`.
 */
export function craft(
  words: readonly number[],
  strings = '\0',
  header: readonly number[] = [],
  byteOrder: 'little' | 'big' = 'little',
): Buffer {
  const size = 24 + header.length * 4
  const bytes = Buffer.alloc(size + words.length * 4 + strings.length)
  const little = byteOrder === 'little'
  const word = (value: number, at: number) =>
    little ? bytes.writeUInt32LE(value, at) : bytes.writeUInt32BE(value, at)
  if (little) bytes.writeUInt16LE(0xeb9f, 0)
  else bytes.writeUInt16BE(0xeb9f, 0)
  bytes.writeUInt8(1, 2)
  const fields = [size, 0, words.length * 4, words.length * 4, strings.length, ...header]
  fields.forEach((value, i) => {
    word(value, 4 + i * 4)
  })
  words.forEach((value, i) => {
    word(value >>> 0, size + i * 4)
  })
  bytes.write(strings, size + words.length * 4, 'latin1')
  return bytes
}

/** The second word of a type: kind, vlen and kind_flag. */
export function info(kind: number, vlen = 0, flag = 0): number {
  return ((flag << 31) | (kind << 24) | vlen) >>> 0
}
