/* Boot images of a kernel, each with the header that the boot loaders of its architecture read. */
import { execFileSync } from 'node:child_process'
import { zstdCompressSync } from 'node:zlib'

/** The compressions of the kernel's build (scripts/Makefile.lib). All but gzip are followed by the unpacked size. */
export const PACKERS = {
  gzip: (kernel: Buffer) => run('gzip', ['-n', '-9'], kernel),
  xz: (kernel: Buffer) => run('xz', ['--check=crc32', '--x86', '--lzma2=dict=8MiB'], kernel),
  lzma: (kernel: Buffer) => run('xz', ['--format=lzma', '-9'], kernel),
  bzip2: (kernel: Buffer) => run('bzip2', ['-9'], kernel),
  lz4: (kernel: Buffer) => run('lz4', ['-l', '-9'], kernel),
  'lz4 frame': (kernel: Buffer) => run('lz4', ['-9'], kernel),
  lzo: (kernel: Buffer) => run('lzop', ['-9'], kernel),
  zstd: (kernel: Buffer) => zstdCompressSync(kernel),
} as const
export type Packer = keyof typeof PACKERS

function run(program: string, options: readonly string[], input: Buffer): Buffer {
  return execFileSync(program, [...options, '--stdout'], { input, maxBuffer: 1 << 28 })
}

/** The compressed kernel as it is put into an image. */
export function packed(kernel: Buffer, packer: Packer): Buffer {
  const bytes = PACKERS[packer](kernel)
  return packer === 'gzip' ? bytes : Buffer.concat([bytes, int32(kernel.length)])
}

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** An x86 image: boot sector and setup code, whose header has the position of the payload; a signature at the end. */
export function bzImage(kernel: Buffer, packer: Packer): Buffer {
  const [sectors, unpacker] = [7, Buffer.alloc(3001, 'unpacker')]
  const setup = Buffer.alloc((sectors + 1) * 512)
  const payload = packed(kernel, packer)
  setup[0x1f1] = sectors
  setup.write('HdrS', 0x202)
  setup.writeUInt16LE(0x20f, 0x206)
  setup.writeUInt32LE(unpacker.length, 0x248)
  setup.writeUInt32LE(payload.length, 0x24c)
  return Buffer.concat([setup, unpacker, payload, Buffer.alloc(999, 'signature')])
}

/**
 * An EFI image for arm64 and others: a stub with the position and size of the payload (for gzip without its last 4
 * bytes).
 */
export function zboot(image: Buffer, packer: Packer): Buffer {
  const stub = Buffer.alloc(0x200)
  const payload = PACKERS[packer](image)
  stub.write('MZ')
  stub.write('zimg', 4)
  stub.writeUInt32LE(stub.length, 8)
  stub.writeUInt32LE(payload.length - (packer === 'gzip' ? 4 : 0), 12)
  stub.write(packer, 24)
  return Buffer.concat([stub, payload, Buffer.alloc(77, 'size and padding')])
}

/** A 32-bit ARM image: code that contains the magic of the payload, the payload, and more bytes. */
export function zImage(kernel: Buffer, packer: Packer): Buffer {
  const payload = packed(kernel, packer)
  const code = Buffer.concat([Buffer.alloc(4093, 'code'), payload.subarray(0, 8)])
  code.writeUInt32LE(0x016f2818, 0x24)
  return Buffer.concat([code, Buffer.alloc(100), payload, Buffer.alloc(4093, 'tables')])
}
