// Sizes with units: how they are read and written.
import t from 'tap'
import { formatSize, parseSize } from '../../service/size.ts'

t.test('a size is a number of bytes, or one with K, M, G or T', async (t) => {
  const sizes = {
    0: 0,
    4096: 4096,
    '64K': 65_536,
    '256m': 2 ** 28,
    '3G': 3 * 2 ** 30,
    '1T': 2 ** 40,
  }
  for (const [text, bytes] of Object.entries(sizes)) t.equal(parseSize(text), bytes, text)
  for (const text of ['', '-1', '1.5G', '1e9', '1P', '1 M', 'M', '1KB', '9999999T', '1M\n'])
    t.equal(parseSize(text), undefined, JSON.stringify(text))
})

t.test(
  'a size is written in the largest unit without a fraction, and read back as the same',
  async (t) => {
    for (const [bytes, text] of [
      ...[
        [0, '0'] as const,
        [1000, '1000'] as const,
        [1024, '1K'] as const,
        [1536, '1536'] as const,
      ],
      ...[[2 ** 28, '256M'] as const, [2 ** 40, '1T'] as const, [2 ** 50, '1024T'] as const],
    ]) {
      t.equal(formatSize(bytes), text)
      t.equal(parseSize(text), bytes)
    }
  },
)
