import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { unpackVmlinuz } from '../../../generator/packages/vmlinuz.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'
import { bzImage, PACKERS, type Packer, packed, zboot, zImage } from '../../helpers/vmlinuz.ts'

const path = join(t.testdir({}), 'vmlinux')
makeVmlinux(path)
const KERNEL = readFileSync(path)
const ALL = Object.keys(PACKERS) as Packer[]

t.test('an unpacked kernel is returned unchanged', async (t) => {
  t.equal(await unpackVmlinuz(KERNEL), KERNEL)
})

t.test(
  'the payload of an x86 image is found by its setup header, in every compression',
  async (t) => {
    for (const packer of ALL)
      t.ok(KERNEL.equals(await unpackVmlinuz(bzImage(KERNEL, packer))), packer)
  },
)

t.test('EFI zboot images and kernels with two layers of compression are unpacked', async (t) => {
  for (const packer of ALL.filter((packer) => packer !== 'lzo'))
    t.ok(KERNEL.equals(await unpackVmlinuz(zboot(KERNEL, packer))), packer)
  t.ok(KERNEL.equals(await unpackVmlinuz(gzipSync(zboot(KERNEL, 'zstd')))))
})

t.test('without a header, the payload is found by its magic', async (t) => {
  // The end of lz4 is recognised by the bytes after it: a size that no block has.
  const large = Buffer.concat([KERNEL, Buffer.alloc(9_000_000)])
  for (const packer of ALL.filter((packer) => packer !== 'lzo'))
    t.ok(large.equals(await unpackVmlinuz(zImage(large, packer))), packer)
})

t.test('an image without a kernel, or with too many layers, is rejected', async (t) => {
  const none = { code: 'invalid_elf' }
  await t.rejects(unpackVmlinuz(Buffer.alloc(0)), none)
  await t.rejects(unpackVmlinuz(Buffer.alloc(5000, 'no kernel')), none)
  for (const packer of ALL) {
    await t.rejects(unpackVmlinuz(bzImage(Buffer.alloc(5000, 'other'), packer)), none, packer)
    await t.rejects(unpackVmlinuz(zImage(Buffer.alloc(5000, 'other'), packer)), none, packer)
  }
  let deep: Buffer = KERNEL
  for (let i = 0; i < 4; i++) deep = PACKERS.bzip2(deep)
  await t.rejects(unpackVmlinuz(deep), none)
})

t.test('a header outside the image is ignored, and a truncated payload is rejected', async (t) => {
  const none = { code: 'invalid_elf' }
  const image = bzImage(KERNEL, 'xz')
  for (const [field, value] of [
    [0x248, 2 ** 31],
    [0x24c, 2 ** 31],
    [0x24c, 100],
  ] as const) {
    const bad = Buffer.from(image)
    bad.writeUInt32LE(value, field)
    const found = await unpackVmlinuz(bad).catch((error) => error)
    // If the position is outside the image, the payload is searched.
    if (value === 100) t.match(found, none)
    else t.ok(KERNEL.equals(found))
  }
  for (const packer of ALL) {
    const half = packed(KERNEL, packer)
    await t.rejects(unpackVmlinuz(half.subarray(0, half.length / 2)), none, packer)
  }
})

t.test('a kernel over the size limit is rejected', async (t) => {
  const huge = Buffer.alloc(600 * 1024 ** 2)
  await t.rejects(unpackVmlinuz(gzipSync(huge, { level: 1 })), { code: 'too_large' })
})
