/* Boot images around a kernel, each with the header that its machine's boot loaders read. */
import { execFileSync } from 'node:child_process'
import { zstdCompressSync } from 'node:zlib'

/** How a kernel's build packs it (scripts/Makefile.lib); all but gzip are followed by the size of what they unpack to. */
export const PACKERS = {
  gzip: (kernel: Buffer) => run('gzip', ['-n', '-9'], kernel),
  xz: (kernel: Buffer) => run('xz', ['--check=crc32', '--x86', '--lzma2=dict=8MiB'], kernel),
  lzma: (kernel: Buffer) => run('xz', ['--format=lzma', '-9'], kernel),
  bzip2: (kernel: Buffer) => run('bzip2', ['-9'], kernel),
  lz4: (kernel: Buffer) => run('lz4', ['-l', '-9'], kernel),
  lzo: (kernel: Buffer) => run('lzop', ['-9'], kernel),
  zstd: (kernel: Buffer) => zstdCompressSync(kernel),
} as const
export type Packer = keyof typeof PACKERS

function run(program: string, options: readonly string[], input: Buffer): Buffer {
  return execFileSync(program, [...options, '--stdout'], { input, maxBuffer: 1 << 28 })
}

/** The kernel packed, as it is put into an image. */
export function packed(kernel: Buffer, packer: Packer): Buffer {
  const bytes = PACKERS[packer](kernel)
  return packer === 'gzip' ? bytes : Buffer.concat([bytes, int32(kernel.length)])
}

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** x86's: boot sector and setup code, whose header says where the packed kernel is, and a signature at the end. */
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

/** EFI's for arm64 and others: a stub that is told where the packed image is; of gzip without the size at its end. */
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

/** ARM's: code that has the packed bytes' beginning for comparison, them, and more. */
export function zImage(kernel: Buffer, packer: Packer): Buffer {
  const payload = packed(kernel, packer)
  const code = Buffer.concat([Buffer.alloc(4093, 'code'), payload.subarray(0, 8)])
  code.writeUInt32LE(0x016f2818, 0x24)
  return Buffer.concat([code, Buffer.alloc(100), payload, Buffer.alloc(4093, 'tables')])
}
