// .xz files with stored data: xz decodes them, and an outer compressor finds their repetitions.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import t from 'tap'
import { frameXz } from '../../../service/bundle/xz-stored.ts'

const SIZES = [0, 1, 2, 3, 4, 127, 128, 65_535, 65_536, 65_537, 131_073, 1_000_000]
const bytesOf = (size: number) => Buffer.from(Array.from({ length: size }, (_, i) => (i * i) >> 3))

t.test('xz decodes a stored file of any size, and its checks hold', async (t) => {
  for (const size of SIZES) {
    const [bytes, framed] = [bytesOf(size), frameXz(bytesOf(size))]
    const plain = execFileSync('xz', ['-dc'], { input: framed, maxBuffer: 2 * size + 1024 })
    t.ok(plain.equals(bytes), `${size}`)
    const file = join(t.testdir(), 'framed.xz')
    writeFileSync(file, framed)
    t.match(execFileSync('xz', ['--list', '--robot', file], { encoding: 'utf8' }), `CRC32`)
    t.ok(framed.length <= size * 1.0002 + 80)
  }
})

t.test('xz refuses a damaged file', async (t) => {
  const framed = frameXz(bytesOf(1000))
  for (let at = 0; at < framed.length; at += 41) {
    const damaged = Buffer.from(framed)
    damaged[at]! ^= 0x10
    t.throws(() => execFileSync('xz', ['-dc'], { input: damaged, stdio: 'pipe' }), `byte ${at}`)
  }
})

t.test('a compressor finds the content that two stored files share', async (t) => {
  const bytes = bytesOf(60_000)
  const twice = Buffer.concat([frameXz(bytes), frameXz(bytes)])
  t.ok(zstdCompressSync(twice).length < zstdCompressSync(frameXz(bytes)).length * 1.1)
})
