import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type ListedFile, readCpio } from '../../../generator/packages/cpio.ts'
import { cpioEntry, cpioOf } from '../../helpers/package.ts'

/** Yields bytes in chunks of `size`. */
async function* chunks(bytes: Uint8Array, size = bytes.length): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

type Listed = (index: number) => ListedFile | undefined

/** Reads all files to their end, by name; null for a file that is not regular. */
async function read(
  source: AsyncIterable<Uint8Array>,
  listed?: Listed,
): Promise<Record<string, string | null>> {
  const files: Record<string, string | null> = {}
  for await (const { name, regular, size, body } of readCpio(source, listed)) {
    const bytes = Buffer.concat(await Array.fromAsync(body))
    if (bytes.length !== size) throw new Error(`${name}: ${bytes.length} of ${size} bytes`)
    files[name] = regular ? bytes.toString() : null
  }
  return files
}

const SMALL = cpioOf([
  cpioEntry('./odd', 'odd'),
  cpioEntry('./empty', ''),
  cpioEntry('./dir', '', { mode: 0o40755, links: 2 }),
  cpioEntry('./link', 'dir/odd', { mode: 0o120777 }),
  cpioEntry('./summed', 'bytes', { magic: '070702', sum: 551 }),
])
const CONTENT = {
  './odd': 'odd',
  './empty': '',
  './dir': null,
  './link': null,
  './summed': 'bytes',
}

t.test('readCpio reads the same files of archives by cpio(1) as bsdtar', async (t) => {
  const root = t.testdir({ file: 'text', odd: 'x', none: '', deep: { er: 'and deeper' } })
  writeFileSync(join(root, 'large'), Buffer.alloc(300_000, 'large'))
  mkdirSync(join(root, 'n'.repeat(200)))
  symlinkSync('file', join(root, 'symlink'))
  linkSync(join(root, 'file'), join(root, 'zlink'))
  const names = execFileSync('find', ['.'], { cwd: root })
  for (const form of ['newc', 'crc']) {
    const input = { cwd: root, input: names, maxBuffer: 1e9 }
    const archive = execFileSync('cpio', ['--quiet', '-o', '-H', form], input)
    const files = await read(chunks(archive))
    const listed = execFileSync('bsdtar', ['-tf', '-'], { input: archive, encoding: 'utf8' })
    t.same(Object.keys(files).sort(), listed.trim().split('\n').sort(), form)
    for (const name of ['large', 'odd', 'none', 'deep/er']) {
      const options = { input: archive, encoding: 'utf8', maxBuffer: 1e9 } as const
      const expected = execFileSync('bsdtar', ['-xOf', '-', name], options)
      t.ok(files[name] === expected, `${form}: ${name}`)
    }
    const { '.': dot, deep, symlink, file, zlink } = files
    t.same({ dot, deep, symlink }, { dot: null, deep: null, symlink: null }, 'not regular')
    t.same([file, zlink].sort(), [null, 'text'].sort(), 'one of two links has the bytes')
  }
})

t.test('the size of chunks makes no difference', async (t) => {
  for (let size = 1; size < 130; size++) t.same(await read(chunks(SMALL, size)), CONTENT, `${size}`)
})

t.test('unread bytes of a body are skipped', async (t) => {
  const names: string[] = []
  for await (const { name, body } of readCpio(chunks(SMALL, 2))) {
    names.push(name)
    if (name === './summed') for await (const _ of body) break
  }
  t.same(names, Object.keys(CONTENT))
})

t.test('in the large-file form, names and sizes come from the header of the package', async (t) => {
  const files = [
    { name: '/first', regular: true, size: 5 },
    { name: '/dir', regular: false, size: 0 },
    { name: '/link', regular: false, size: 6 },
    { name: '/last', regular: true, size: 3 },
  ]
  const stripped = (index: number, content: string) =>
    cpioEntry(index, content, { magic: '07070X' })
  const archive = cpioOf([
    stripped(3, 'odd'),
    stripped(1, ''),
    stripped(2, '/first'),
    stripped(0, 'bytes'),
  ])
  const content = { '/last': 'odd', '/dir': null, '/link': null, '/first': 'bytes' }
  for (let size = 1; size < 40; size++)
    t.same(await read(chunks(archive, size), (index) => files[index]), content, `${size}`)

  const code = 'invalid_package'
  await t.rejects(
    read(chunks(cpioOf([stripped(4, '')])), (index) => files[index]),
    { code },
  )
  await t.rejects(read(chunks(archive)), { code }, 'there is no list of files')
  const large: Listed = () => ({ name: '/large', regular: true, size: 5 * 1024 ** 3 })
  for await (const { size } of readCpio(chunks(archive), large)) {
    t.equal(size, 5 * 1024 ** 3, 'larger than newc allows')
    break
  }
})

t.test('an archive that is cut off anywhere is an error', async (t) => {
  for (let length = 0; length < SMALL.length; length++) {
    const cut = read(chunks(SMALL.subarray(0, length)))
    await t.rejects(cut, { code: 'invalid_package' }, `${length} bytes`)
  }
})

t.test('bytes after the trailer are not read', async (t) => {
  async function* source() {
    yield SMALL
    throw new Error('read on')
  }
  t.same(await read(source()), CONTENT)
})

t.test('an invalid header, or another form of cpio, is rejected', async (t) => {
  const rejects = async (what: string, bytes: Buffer, message: RegExp) =>
    t.rejects(read(chunks(bytes)), { code: 'invalid_package', message }, what)
  const entry = (name: string, fields: Parameters<typeof cpioEntry>[2]) =>
    cpioOf([cpioEntry(name, 'body', fields)])
  await rejects('not cpio', Buffer.alloc(1000), /unknown magic/)
  await rejects('the old portable form', Buffer.from('070707'.padEnd(200, '0')), /unknown magic/)
  await rejects('a size beyond the archive', entry('a', { size: 0xffffffff }), /middle of a file/)
  await rejects('a name without NUL', entry('name', { nameSize: 4 }), /does not end with NUL/)
  await rejects('an empty name', entry('name', { nameSize: 0 }), /does not end with NUL/)
  await rejects('a name with a NUL in it', entry('a\0b', {}), /does not end with NUL/)
  await rejects('a name too long', entry('a', { nameSize: 0xffffffff }), /4294967295 bytes/)
  await rejects('a wrong sum', entry('a', { magic: '070702', sum: 1 }), /expected 1/)
  for (const digits of ['0000000g', '0x000001', '-0000001', '       1']) {
    const bytes = Buffer.from(SMALL)
    bytes.write(digits, 6 + 6 * 8)
    await rejects(`a size of ${digits}`, bytes, /invalid number/)
  }
})
