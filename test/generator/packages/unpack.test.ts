import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { readDeb } from '../../../generator/packages/deb.ts'
import {
  atMost,
  UNPACK_LIMITS,
  type UnpackLimits,
  unpackFiles,
} from '../../../generator/packages/unpack.ts'
import { arOf, debOf, type Entry, makePackage, tarOf } from '../../helpers/package.ts'

const BOOT = 'usr/lib/debug/boot/vmlinux-6.1.0-9-test'
const MODULES = 'usr/lib/debug/lib/modules/6.1.0-9-test/vmlinux'
const PATHS = [BOOT, MODULES]
const IMAGE = Buffer.alloc(100_000, 'vmlinux')
const MODULE = Buffer.alloc(300_000, 'module')

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 4096) yield bytes.subarray(at, at + 4096)
}

/** Makes an empty directory that is removed after the test. */
function emptyDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'unpack-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

/** Returns the unpacked vmlinux, or the error code; in this case no file may be left. */
async function unpack(
  t: Test,
  bytes: Uint8Array,
  { unpacked, vmlinux }: UnpackLimits = UNPACK_LIMITS,
): Promise<Buffer | string> {
  const directory = emptyDirectory(t)
  try {
    const files = readDeb(chunks(bytes), unpacked)
    const target = join(directory, 'target')
    await unpackFiles(files, PATHS, { vmlinux: target, room: atMost(vmlinux) })
  } catch (error) {
    t.same(readdirSync(directory), [], 'a failure leaves no file')
    return (error as { code: string }).code
  }
  t.same(readdirSync(directory), ['target'], 'vmlinux is the only file')
  return readFileSync(join(directory, 'target'))
}

t.test('packages by dpkg-deb are unpacked in every compression', async (t) => {
  const directory = emptyDirectory(t)
  const [image, module] = ['image', 'module'].map((name) => join(directory, name))
  writeFileSync(image!, IMAGE)
  writeFileSync(module!, MODULE)
  for (const compression of ['xz', 'gzip', 'zstd', 'none'] as const) {
    for (const path of PATHS) {
      const files = { [path]: image!, 'usr/lib/debug/lib/modules/m.ko': module! }
      const file = makePackage(directory, undefined, { files, compression })
      t.same(await unpack(t, readFileSync(file)), IMAGE, `${compression} ${path}`)
    }
  }
})

t.test(
  'vmlinux is found at each path, in any order, and with symlinks before or after it',
  async (t) => {
    const module: Entry = ['./usr/lib/debug/lib/modules/6.1.0-9-test/kernel/fs/ext4.ko', MODULE]
    const link: Entry = [`./${BOOT}`, { linkname: `../../../../${MODULES}` }]
    const orders: Record<string, Entry[]> = {
      'vmlinux before the modules': [[`./${BOOT}`, IMAGE], module],
      'after the modules': [module, [`./${MODULES}`, IMAGE]],
      'with symlinks to it that come later': [module, [`./${MODULES}`, IMAGE], link],
      'with a symlink to it that comes before': [link, module, [`./${MODULES}`, IMAGE]],
      'without ./': [[BOOT, IMAGE]],
      'the first of two': [
        [BOOT, IMAGE],
        [MODULES, MODULE],
      ],
    }
    for (const [what, entries] of Object.entries(orders))
      t.same(await unpack(t, await debOf(entries)), IMAGE, what)
  },
)

t.test(
  'the members of a deb may have any order, other members, and the slash of GNU ar',
  async (t) => {
    const [data, control] = [await tarOf([[BOOT, IMAGE]]), await tarOf([['./control', 'shim']])]
    const members = (...names: string[]) =>
      arOf(
        names.map((name) => {
          const tar = name.startsWith('data')
            ? data
            : name.startsWith('control')
              ? control
              : '2.0\n'
          return [name, Buffer.from(tar as string)]
        }),
      )
    for (const names of [
      ['debian-binary', 'control.tar', 'data.tar'],
      ['debian-binary', 'data.tar', 'control.tar'],
      ['debian-binary', '_gpgorigin', 'control.tar', 'data.tar', '_gpgbuilder'],
      ['debian-binary/', 'control.tar/', 'data.tar/'],
    ])
      t.same(await unpack(t, members(...names)), IMAGE, names.join())
  },
)

t.test('paths in an archive are only compared, never followed', async (t) => {
  const outside = join(tmpdir(), 'unpack-outside')
  const entries: Entry[] = [
    ['../../etc/passwd', 'root::0:0'],
    [`../../../../../../${outside}`, 'outside'],
    [outside, 'outside'],
    ['./link', { linkname: '/etc' }],
    ['./link/passwd', 'root::0:0'],
    [`../${BOOT}`, 'above'],
    [`usr/lib/../lib/debug/boot/vmlinux-6.1.0-9-test`, 'around'],
    [`${'long/'.repeat(60)}vmlinux`, 'long'],
    [BOOT, IMAGE],
  ]
  t.same(await unpack(t, await debOf(entries)), IMAGE)
  t.notOk(readdirSync(tmpdir()).includes('unpack-outside'))
  t.equal(await unpack(t, await debOf(entries.slice(0, -1))), 'no_vmlinux')
})

t.test('a package without vmlinux gives no_vmlinux, and the message has the paths', async (t) => {
  t.equal(await unpack(t, await debOf([])), 'no_vmlinux')
  t.equal(await unpack(t, await debOf([[BOOT, { linkname: '/boot/vmlinux' }]])), 'no_vmlinux')
  const target = join(emptyDirectory(t), 'target')
  const deb = await debOf([['usr/share/doc/copyright', 'GPL-2']])
  const message = new RegExp(PATHS.join(', '))
  const files = readDeb(chunks(deb), UNPACK_LIMITS.unpacked)
  await t.rejects(unpackFiles(files, PATHS, { vmlinux: target }), { code: 'no_vmlinux', message })
})

t.test('an existing file is not overwritten', async (t) => {
  const directory = emptyDirectory(t)
  execFileSync('ln', ['-s', '/dev/null', join(directory, 'target')])
  const deb = await debOf([[BOOT, IMAGE]])
  const files = readDeb(chunks(deb), UNPACK_LIMITS.unpacked)
  await t.rejects(unpackFiles(files, PATHS, { vmlinux: join(directory, 'target') }))
})

t.test('a deb without a valid data.tar is rejected', async (t) => {
  t.equal(await unpack(t, Buffer.from('no package')), 'invalid_package')
  const plain = await tarOf([[BOOT, IMAGE]])
  const deb = (name: string, bytes: Buffer) => arOf([[name, bytes]])
  t.equal(await unpack(t, deb('control.tar', plain)), 'invalid_package')
  t.equal(await unpack(t, deb('data.tar.lz', plain)), 'unsupported_package')
  t.equal(await unpack(t, deb('data.tar.xz', plain)), 'invalid_package')
  t.equal(await unpack(t, deb('data.tar', MODULE)), 'invalid_package', 'not a tar archive')
})

t.test('a package that is cut off within vmlinux is rejected', async (t) => {
  const deb = await debOf([[BOOT, IMAGE]])
  t.equal(await unpack(t, deb.subarray(0, deb.length / 2)), 'truncated')
  const tar = await tarOf([[BOOT, IMAGE]])
  const short = tar.subarray(0, tar.length / 2)
  t.equal(await unpack(t, arOf([['data.tar', short]])), 'invalid_package')
  t.equal(await unpack(t, arOf([['data.tar.zst', zstdCompressSync(short)]])), 'invalid_package')
})

t.test('a vmlinux, or all unpacked files, over the limit are rejected', async (t) => {
  const zeros: Entry = ['zeros', Buffer.alloc(8 * 1024 ** 2)]
  const tar = await tarOf([zeros, [BOOT, IMAGE]])
  const bomb = arOf([['data.tar.zst', zstdCompressSync(tar)]])
  t.ok(bomb.length < 4096, `${bomb.length} bytes`)
  const limits = { vmlinux: IMAGE.length, unpacked: tar.length }
  t.same(await unpack(t, bomb, limits), IMAGE, 'exactly at the limit')
  t.equal(await unpack(t, bomb, { ...limits, unpacked: 4 * 1024 ** 2 }), 'too_large')
  t.equal(await unpack(t, bomb, { ...limits, vmlinux: IMAGE.length - 1 }), 'too_large')
})
