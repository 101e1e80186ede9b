// Tar archives, whole and cut off: every error has a code, also that of a body.
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { readTar } from '../../../generator/packages/tar.ts'
import { tarOf } from '../../helpers/package.ts'

const tar = await tarOf([
  ['first', Buffer.alloc(200_000, 'x')],
  ['second', 'text'],
])
const inPieces = (bytes: Buffer) =>
  Readable.from(
    Array.from({ length: Math.ceil(bytes.length / 4096) }, (_, i) =>
      bytes.subarray(i * 4096, i * 4096 + 4096),
    ),
  )

t.test('an archive that ends in the middle of a file fails with invalid_package', async (t) => {
  for (const length of [600, 5000, 199_000, tar.length - 1200]) {
    const read = async () => {
      for await (const { body } of readTar(inPieces(tar.subarray(0, length)))) await buffer(body)
    }
    await t.rejects(read(), { name: 'GeneratorError', code: 'invalid_package' }, `${length} bytes`)
  }
})

t.test('an archive with a size that is not a number fails with invalid_package', async (t) => {
  const odd = Buffer.from(tar)
  odd.write('00x00567000 ', 124)
  const sum = odd
    .subarray(0, 512)
    .reduce((all, byte, i) => all + (i >= 148 && i < 156 ? 32 : byte), 0)
  odd.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  const read = () => Array.fromAsync(readTar(inPieces(odd)))
  await t.rejects(read(), { name: 'GeneratorError', code: 'invalid_package' })
})

t.test('a reader may stop in the middle of a file, and gets the next file', async (t) => {
  const names: string[] = []
  for await (const { name, body } of readTar(inPieces(tar))) {
    names.push(name)
    for await (const piece of body) {
      t.ok(piece.length > 0)
      break
    }
  }
  t.same(names, ['first', 'second'])
})
