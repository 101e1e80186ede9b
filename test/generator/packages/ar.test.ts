import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { readAr } from '../../../generator/packages/ar.ts'
import { arOf, makePackage } from '../../helpers/package.ts'

/** Bytes as a stream gives them, so many at once. */
async function* chunks(bytes: Uint8Array, size = bytes.length): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** All members by name, each read to its end. */
async function read(source: AsyncIterable<Uint8Array>): Promise<Record<string, Buffer>> {
  const members: Record<string, Buffer> = {}
  for await (const { name, size, body } of readAr(source)) {
    const bytes = Buffer.concat(await Array.fromAsync(body))
    if (bytes.length !== size) throw new Error(`${name}: ${bytes.length} of ${size} bytes`)
    members[name] = bytes
  }
  return members
}

const SMALL = arOf([
  ['debian-binary', Buffer.from('2.0\n')],
  ['odd/', Buffer.from('odd')],
  ['empty', Buffer.alloc(0)],
  ['last', Buffer.from('bytes')],
])

t.test('a package of dpkg-deb, as ar(1) reads it', async (t) => {
  const path = makePackage(t.testdir(), undefined)
  const members = await read(chunks(readFileSync(path)))
  const names = execFileSync('ar', ['t', path], { encoding: 'utf8' }).trim().split('\n')
  t.same(Object.keys(members), names)
  for (const name of names) t.ok(members[name]?.equals(execFileSync('ar', ['p', path, name])), name)
})

t.test('in chunks of every size', async (t) => {
  const whole = await read(chunks(SMALL))
  t.same(whole, {
    'debian-binary': Buffer.from('2.0\n'),
    odd: Buffer.from('odd'),
    empty: Buffer.alloc(0),
    last: Buffer.from('bytes'),
  })
  for (let size = 1; size < 70; size++) t.same(await read(chunks(SMALL, size)), whole, `${size}`)
})

t.test('bodies that are not read, or not to their end, are passed over', async (t) => {
  const names: string[] = []
  for await (const { name, body } of readAr(chunks(SMALL, 3))) {
    names.push(name)
    if (name === 'debian-binary') await body.next()
  }
  t.same(names, ['debian-binary', 'odd', 'empty', 'last'])
})

t.test('cut off anywhere, it says so or ends between two members', async (t) => {
  const whole = await read(chunks(SMALL))
  let truncated = 0
  for (let length = 0; length < SMALL.length; length++) {
    const outcome = await read(chunks(SMALL.subarray(0, length))).catch(({ code }) => code)
    if (typeof outcome === 'string') {
      truncated++
      t.equal(outcome, 'truncated', `${length} bytes`)
    } else {
      for (const name of Object.keys(outcome)) t.same(outcome[name], whole[name])
    }
  }
  t.ok(truncated > SMALL.length - 16)
})

t.test('no ar archive, and headers that lie', async (t) => {
  const refuses = async (what: string, bytes: Buffer, code = 'invalid_package') =>
    t.rejects(read(chunks(bytes)), { code }, what)
  const header = (field: string, at: number) => {
    const bytes = Buffer.from(SMALL)
    bytes.write(field, 8 + at)
    return bytes
  }
  await refuses('another file', Buffer.alloc(1000))
  await refuses('a thin archive', Buffer.from('!<thin>\nand more'))
  await refuses('a size that is no number', header('zzzzzzzzzz', 48))
  await refuses('a size below zero', header('-1        ', 48))
  await refuses('no end of the header', header('xx', 58))
  await refuses('a size beyond the file', header('9999999999', 48), 'truncated')
})
