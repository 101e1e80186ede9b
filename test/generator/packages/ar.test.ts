import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { readAr } from '../../../generator/packages/ar.ts'
import { arOf, makePackage } from '../../helpers/package.ts'

/** Yields bytes in chunks of `size`. */
async function* chunks(bytes: Uint8Array, size = bytes.length): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** Reads all members to their end, by name. */
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

t.test('readAr reads the same members of a deb as ar(1)', async (t) => {
  const path = makePackage(t.testdir(), undefined)
  const members = await read(chunks(readFileSync(path)))
  const names = execFileSync('ar', ['t', path], { encoding: 'utf8' }).trim().split('\n')
  t.same(Object.keys(members), names)
  for (const name of names) t.ok(members[name]?.equals(execFileSync('ar', ['p', path, name])), name)
})

t.test('the size of chunks makes no difference', async (t) => {
  const whole = await read(chunks(SMALL))
  t.same(whole, {
    'debian-binary': Buffer.from('2.0\n'),
    odd: Buffer.from('odd'),
    empty: Buffer.alloc(0),
    last: Buffer.from('bytes'),
  })
  for (let size = 1; size < 70; size++) t.same(await read(chunks(SMALL, size)), whole, `${size}`)
})

t.test('unread bytes of a body are skipped', async (t) => {
  const names: string[] = []
  for await (const { name, body } of readAr(chunks(SMALL, 3))) {
    names.push(name)
    if (name === 'debian-binary') await body.next()
  }
  t.same(names, ['debian-binary', 'odd', 'empty', 'last'])
})

t.test('an archive that is cut off is an error, or ends between two members', async (t) => {
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

t.test('a file that is not an ar archive, or has an invalid header, is rejected', async (t) => {
  const rejects = async (what: string, bytes: Buffer, code = 'invalid_package') =>
    t.rejects(read(chunks(bytes)), { code }, what)
  const header = (field: string, at: number) => {
    const bytes = Buffer.from(SMALL)
    bytes.write(field, 8 + at)
    return bytes
  }
  await rejects('another file', Buffer.alloc(1000))
  await rejects('a thin archive', Buffer.from('!<thin>\nand more'))
  await rejects('a size that is not a number', header('zzzzzzzzzz', 48))
  await rejects('a negative size', header('-1        ', 48))
  await rejects('a header without its magic', header('xx', 58))
  await rejects('a size beyond the file', header('9999999999', 48), 'truncated')
})
