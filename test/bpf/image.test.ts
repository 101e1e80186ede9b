import { readFileSync } from 'node:fs'
import t from 'tap'
import { describeImage, encodeBtf, isKernelImage, parseBtf } from '../../bpf/index.ts'
import { littleKernels } from '../helpers/core.ts'
import { fixture } from '../helpers/fixtures.ts'

const BANNER =
  'Linux version 6.1.0-9-test (builder@host) (gcc) #1 SMP Debian 6.1.9-1 (2023-02-01)\n\0'
const BUILD_ID = '0123456789abcdef0123456789abcdef01234567'
const told = {
  release: '6.1.0-9-test',
  unameVersion: '#1 SMP Debian 6.1.9-1 (2023-02-01)',
  buildId: BUILD_ID,
  hasDwarf: false,
}

/** The fixture that has a task_struct. */
const KERNEL = [...littleKernels().values()]
  .map((path) => readFileSync(path))
  .find((bytes) => parseBtf(bytes).find('task_struct', 'STRUCT') !== undefined)!
const BIG = Buffer.from(encodeBtf(parseBtf(KERNEL).types(), { byteOrder: 'big' }))

/** A build-id note and another note after it. */
function notes(order: 'little' | 'big', buildId: string): Buffer {
  const words = (...values: number[]) => {
    const bytes = Buffer.alloc(values.length * 4)
    for (const [i, value] of values.entries())
      order === 'little' ? bytes.writeUInt32LE(value, i * 4) : bytes.writeUInt32BE(value, i * 4)
    return bytes
  }
  const [gnu, linux] = [Buffer.from('GNU\0'), Buffer.from('Linux\0\0\0')]
  const id = Buffer.from(buildId, 'hex')
  return Buffer.concat([words(4, 20, 3), gnu, id, words(6, 4, 0x101), linux, words(0)])
}

/** The part of an image before its BTF: code, data, a vDSO with its own build-id, the kernel's notes. */
function image(
  btf: Buffer,
  order: 'little' | 'big' = 'little',
  start: Buffer = Buffer.alloc(64),
): Buffer {
  const code = Buffer.alloc(5003, 'code')
  const vdso = Buffer.concat([notes(order, 'ff'.repeat(20)), Buffer.alloc(90_000)])
  const rest = Buffer.alloc(7001, 'data')
  return Buffer.concat([
    ...[start, code, Buffer.from('Linux version %s (%s)\0'), Buffer.from(BANNER), vdso],
    ...[notes(order, BUILD_ID), Buffer.alloc(5), btf, rest],
  ])
}

/** The first bytes of a PE file for a machine. */
function pe(machine: number): Buffer {
  const bytes = Buffer.alloc(0x80)
  bytes.write('MZ')
  bytes.writeUInt32LE(0x40, 0x3c)
  bytes.write('PE\0\0', 0x40)
  bytes.writeUInt16LE(machine, 0x44)
  return bytes
}

t.test('a flat image gives release, build-id and BTF in either byte order', (t) => {
  const { ownBtf, ...rest } = describeImage(image(KERNEL)) ?? {}
  const { pointerSize } = parseBtf(KERNEL)
  t.same(rest, { byteOrder: 'little', pointerSize, machine: 0, ...told })
  t.ok(KERNEL.equals(ownBtf!), 'the bytes are exactly the BTF')

  const big = describeImage(image(BIG, 'big'))
  t.match(big, { byteOrder: 'big', ...told })
  t.ok(BIG.equals(big?.ownBtf ?? Buffer.alloc(0)))
  t.end()
})

t.test('the machine of a flat image comes from its PE header', (t) => {
  const machines = { aarch64: 0xaa64, riscv64: 0x5064, loongarch64: 0x6264, x86_64: 0x8664 }
  for (const [arch, machine] of Object.entries(machines))
    t.equal(describeImage(image(KERNEL, 'little', pe(machine)))?.arch, arch)
  t.equal(describeImage(image(KERNEL, 'little', pe(0x1c0)))?.arch, undefined)
  const beyond = pe(0xaa64)
  beyond.writeUInt32LE(0xffff_fff0, 0x3c)
  t.equal(describeImage(image(KERNEL, 'little', beyond))?.arch, undefined)
  t.end()
})

t.test("BTF that is not the kernel's, and bytes that resemble BTF, are skipped", (t) => {
  const [other, cut] = [fixture('types-x86_64.btf'), KERNEL.subarray(0, 1000)]
  const found = describeImage(image(Buffer.concat([other, cut, KERNEL])))
  t.ok(KERNEL.equals(found?.ownBtf ?? Buffer.alloc(0)))
  t.equal(found?.buildId, BUILD_ID)
  t.equal(describeImage(image(other)), undefined)
  t.equal(describeImage(image(cut)), undefined)
  t.equal(describeImage(image(Buffer.alloc(0))), undefined)
  t.equal(describeImage(Buffer.alloc(0)), undefined)
  t.end()
})

t.test('notes that are not next to the BTF are ignored', (t) => {
  const far = Buffer.concat([notes('little', BUILD_ID), Buffer.alloc(70_000), KERNEL])
  t.equal(describeImage(far)?.buildId, undefined)
  t.equal(describeImage(KERNEL)?.buildId, undefined)
  t.end()
})

t.test('isKernelImage recognises a kernel by its complete banner only', (t) => {
  t.ok(isKernelImage(image(Buffer.alloc(0))))
  t.notOk(isKernelImage(Buffer.from('Linux version %s (%s)\0Linux version \0')))
  t.notOk(isKernelImage(Buffer.from(BANNER.slice(0, 40))))
  t.notOk(isKernelImage(Buffer.from('Linux version '.repeat(10_000))))
  t.end()
})
