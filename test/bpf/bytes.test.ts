// The byte helpers of bpf/bytes.ts, which stand in for Node's Buffer, against Buffer itself.
import { assert, constantFrom, type IRawProperty, property, string, uint8Array } from 'fast-check'
import t, { type Test } from 'tap'
import {
  concatBytes,
  decodeLatin1,
  decodeText,
  encodeLatin1,
  encodeText,
  findAll,
  hexOf,
  wordsOf,
} from '../../bpf/bytes.ts'

/** Asserts that a property holds for random values. */
const holds = <T>(t: Test, rule: IRawProperty<T>, options = {}): void => {
  t.doesNotThrow(() => assert(rule, options))
}

const bytes = uint8Array({ maxLength: 200 })

t.test(
  'text is decoded and encoded as Buffer does, invalid UTF-8 and byte order marks too',
  async (t) => {
    const text = constantFrom('', 'a', '\ufeffa', '\ud800', 'ä€😀', 'x'.repeat(5000))
    holds(
      t,
      property(bytes, (b) => decodeText(b) === Buffer.from(b).toString('utf8')),
    )
    holds(
      t,
      property(text, (s) => Buffer.from(s).equals(encodeText(s))),
    )
    holds(
      t,
      property(string({ unit: 'binary' }), (s) => Buffer.from(s).equals(encodeText(s))),
    )
    holds(
      t,
      property(bytes, (b) => decodeLatin1(b) === Buffer.from(b).toString('latin1')),
    )
    holds(
      t,
      property(bytes, (b) => Buffer.from(b).equals(encodeLatin1(decodeLatin1(b)))),
    )
    holds(
      t,
      property(bytes, (b) => hexOf(b) === Buffer.from(b).toString('hex')),
    )
    holds(
      t,
      property(bytes, bytes, (a, b) => Buffer.concat([a, b]).equals(concatBytes([a, b]))),
    )
  },
)

t.test(
  'a search finds every occurrence, overlapping ones too, as Buffer.indexOf does',
  async (t) => {
    const few = (minLength: number, maxLength: number) =>
      uint8Array({ min: 0, max: 2, minLength, maxLength })
    holds(
      t,
      property(few(0, 100), few(1, 5), (haystack, needle) => {
        const buffer = Buffer.from(haystack)
        const expected: number[] = []
        for (let at = buffer.indexOf(needle); at >= 0; at = buffer.indexOf(needle, at + 1))
          expected.push(at)
        return [...findAll(haystack, needle)].join() === expected.join()
      }),
      { numRuns: 2000 },
    )
  },
)

t.test('words are read in either byte order, aligned or not', async (t) => {
  holds(
    t,
    property(bytes, constantFrom(0, 1, 2, 3, 4), (b, start) => {
      const part = b.subarray(start)
      const view = new DataView(part.buffer, part.byteOffset, part.byteLength)
      return (['little', 'big'] as const).every((order) =>
        [...wordsOf(part, order)].every((w, i) => w === view.getInt32(i * 4, order === 'little')),
      )
    }),
  )
})
