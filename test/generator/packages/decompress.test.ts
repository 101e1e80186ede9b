import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { buffer } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import t from 'tap'
import {
  type Compression,
  compressionIn,
  compressionOf,
  decompress,
  MAGIC_SIZE,
} from '../../../generator/packages/decompress.ts'

const TEXT = Buffer.concat([randomBytes(300_000), Buffer.alloc(700_000, 'text')])

function pack(program: string, ...options: string[]): Buffer {
  return execFileSync(program, [...options, '--stdout'], { input: TEXT, maxBuffer: 1 << 28 })
}

const PACKED: Record<Exclude<Compression, 'none'>, Buffer> = {
  gz: gzipSync(TEXT),
  zst: zstdCompressSync(TEXT, { params: { [constants.ZSTD_c_checksumFlag]: 1 } }),
  xz: pack('xz', '--block-size=100000'),
  lzma: pack('xz', '--format=lzma'),
  bz2: pack('bzip2'),
  lz4: pack('lz4', '-l'),
  lzo: pack('lzop'),
}
const KINDS = Object.entries(PACKED) as [Compression, Buffer][]
/** The formats with a checksum. The others decode some invalid data. */
const CHECKED = KINDS.filter(([kind]) => kind !== 'lzma' && kind !== 'lz4')

async function* chunks(bytes: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const read = (bytes: Uint8Array, kind: Compression, size?: number): Promise<Buffer> =>
  buffer(decompress(chunks(bytes, size), kind))

/** The running child processes. */
const children = (): string[] =>
  readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ').filter(Boolean)

/** Waits up to 5 s for a condition: a stream is closed a little after it is destroyed. */
async function eventually(holds: () => boolean): Promise<boolean> {
  for (let i = 0; i < 500 && !holds(); i++) await pause(10)
  return holds()
}

t.test('compressionOf tells the compression by the file name', (t) => {
  t.equal(compressionOf('data.tar'), 'none')
  t.equal(compressionOf('data.tar.xz'), 'xz')
  t.equal(compressionOf('data.tar.gz'), 'gz')
  t.equal(compressionOf('data.tar.zst'), 'zst')
  t.equal(compressionOf('data.tar.lzma'), 'lzma')
  t.equal(compressionOf('data.tar.bz2'), 'bz2')
  for (const name of ['data.tar.lz', 'data.tar.', 'data.tar.constructor'])
    t.throws(() => compressionOf(name), { code: 'unsupported_package' }, name)
  t.end()
})

t.test('compressionIn tells the compression by the first bytes', (t) => {
  for (const [kind, bytes] of KINDS) t.equal(compressionIn(bytes.subarray(0, MAGIC_SIZE)), kind)
  for (const start of [TEXT.subarray(0, MAGIC_SIZE), Buffer.alloc(MAGIC_SIZE), Buffer.alloc(0)])
    t.equal(compressionIn(start), 'none')
  t.end()
})

t.test('every compression is decompressed, whole and in small chunks', async (t) => {
  t.ok(TEXT.equals(await read(TEXT, 'none')))
  for (const [kind, bytes] of KINDS) {
    t.ok(TEXT.equals(await read(bytes, kind)), kind)
    t.ok(TEXT.equals(await read(bytes, kind, 997)), `${kind} in chunks`)
  }
})

t.test('corrupt, truncated and other data is rejected', async (t) => {
  const invalid = { code: 'invalid_package', message: /does not decompress: \S/ }
  for (const [kind, bytes] of CHECKED) {
    const corrupt = Buffer.from(bytes)
    corrupt.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 32)
    await t.rejects(read(corrupt, kind), invalid, `${kind} corrupt`)
  }
  for (const [kind, bytes] of KINDS) {
    const half = bytes.length >> 1
    await t.rejects(read(bytes.subarray(0, -20), kind), invalid, `${kind} cut off`)
    await t.rejects(read(bytes.subarray(0, half), kind), invalid, `half of ${kind}`)
    await t.rejects(read(randomBytes(1000), kind), invalid, `not ${kind}`)
  }
})

t.test('an error of the source is the error of the result', async (t) => {
  const reason = new Error('the run was stopped')
  for (const [kind, bytes] of [...KINDS, ['none', TEXT]] as const) {
    async function* failing() {
      yield bytes.subarray(0, 1000)
      throw reason
    }
    await t.rejects(buffer(decompress(failing(), kind)), reason, kind)
  }
  t.ok(await eventually(() => children().length === 0), 'no program is still running')
})

t.test('destroying the result ends the source and the program', async (t) => {
  for (const [kind, bytes] of KINDS) {
    let ended = false
    async function* endless() {
      try {
        for (;;) yield bytes
      } finally {
        ended = true
      }
    }
    const stream = decompress(endless(), kind)
    for await (const _ of stream) break
    t.ok(stream.destroyed, kind)
    t.ok(
      await eventually(() => ended && children().length === 0),
      `the source of ${kind} has ended`,
    )
  }
})

t.test('a program that a signal ends gives aborted, not invalid_package', async (t) => {
  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    async function* slow() {
      yield PACKED.xz.subarray(0, 1000)
      await eventually(() => children().length > 0)
      for (const pid of children()) process.kill(Number(pid), signal)
      await pause(10_000, undefined, { ref: false })
    }
    const message = `xz was ended by ${signal}`
    await t.rejects(buffer(decompress(slow(), 'xz')), { code: 'aborted', message })
  }
})

t.test('a dictionary above the memory limit is rejected', async (t) => {
  const greedy = Buffer.from(PACKED.lzma)
  greedy.writeUInt32LE(2 ** 31, 1) // size of the dictionary
  await t.rejects(read(greedy, 'lzma'), { code: 'too_large', message: /[Mm]emory/ })
})
