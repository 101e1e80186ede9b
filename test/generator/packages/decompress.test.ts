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
/** Those with a checksum: in the others some nonsense decodes. */
const CHECKED = KINDS.filter(([kind]) => kind !== 'lzma' && kind !== 'lz4')

async function* chunks(bytes: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const read = (bytes: Uint8Array, kind: Compression, size?: number): Promise<Buffer> =>
  buffer(decompress(chunks(bytes, size), kind))

/** The processes that this one has started and that still run. */
const children = (): string[] =>
  readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ').filter(Boolean)

/** Whether a condition comes to hold; a stream is closed a little after it is destroyed. */
async function soon(holds: () => boolean): Promise<boolean> {
  for (let i = 0; i < 500 && !holds(); i++) await pause(10)
  return holds()
}

t.test('the compression that a name tells', (t) => {
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

t.test('the compression that the first bytes tell', (t) => {
  for (const [kind, bytes] of KINDS) t.equal(compressionIn(bytes.subarray(0, MAGIC_SIZE)), kind)
  for (const start of [TEXT.subarray(0, MAGIC_SIZE), Buffer.alloc(MAGIC_SIZE), Buffer.alloc(0)])
    t.equal(compressionIn(start), 'none')
  t.end()
})

t.test('every compression, whole and in small chunks', async (t) => {
  t.ok(TEXT.equals(await read(TEXT, 'none')))
  for (const [kind, bytes] of KINDS) {
    t.ok(TEXT.equals(await read(bytes, kind)), kind)
    t.ok(TEXT.equals(await read(bytes, kind, 997)), `${kind} in chunks`)
  }
})

t.test('corrupt in the middle, and cut off', async (t) => {
  const bad = { code: 'invalid_package', message: /does not decompress: \S/ }
  for (const [kind, bytes] of CHECKED) {
    const corrupt = Buffer.from(bytes)
    corrupt.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 32)
    await t.rejects(read(corrupt, kind), bad, `${kind} corrupt`)
  }
  for (const [kind, bytes] of KINDS) {
    const half = bytes.length >> 1
    await t.rejects(read(bytes.subarray(0, -20), kind), bad, `${kind} cut off`)
    await t.rejects(read(bytes.subarray(0, half), kind), bad, `half of ${kind}`)
    await t.rejects(read(randomBytes(1000), kind), bad, `no ${kind}`)
  }
})

t.test('a source that fails is the failure', async (t) => {
  const reason = new Error('the run was stopped')
  for (const [kind, bytes] of [...KINDS, ['none', TEXT]] as const) {
    async function* failing() {
      yield bytes.subarray(0, 1000)
      throw reason
    }
    await t.rejects(buffer(decompress(failing(), kind)), reason, kind)
  }
  t.ok(await soon(() => children().length === 0), 'no program is left')
})

t.test('whoever has enough destroys it, and nothing is left running', async (t) => {
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
    t.ok(await soon(() => ended && children().length === 0), `the source of ${kind} is ended`)
  }
})

t.test('a program that somebody ends says nothing of the package', async (t) => {
  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    async function* slow() {
      yield PACKED.xz.subarray(0, 1000)
      await soon(() => children().length > 0)
      for (const pid of children()) process.kill(Number(pid), signal)
      await pause(10_000, undefined, { ref: false })
    }
    const message = `xz was ended by ${signal}`
    await t.rejects(buffer(decompress(slow(), 'xz')), { code: 'aborted', message })
  }
})

t.test('what would take more memory than a package may', async (t) => {
  const greedy = Buffer.from(PACKED.lzma)
  greedy.writeUInt32LE(2 ** 31, 1) // the dictionary's size
  await t.rejects(read(greedy, 'lzma'), { code: 'too_large', message: /[Mm]emory/ })
})
