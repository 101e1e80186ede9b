import t from 'tap'
import {
  BtfError,
  describeVmlinux,
  memorySource,
  parseBtf,
  printHeader,
  printLayout,
  readBtf,
} from '../../bpf/index.ts'
import { fixture, fixtureNames } from './fixtures.ts'

/** Runs a reader on bad bytes: a value or a BtfError is fine, anything else is a defect. */
function survives(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch (error) {
    if (error instanceof BtfError) return true
    throw error
  }
}

function walk(bytes: Uint8Array): void {
  const btf = readBtf(bytes)
  for (const type of btf.types()) type.name
  btf.find('everything', 'STRUCT')
  btf.pointerSize
  for (const piece of printHeader(btf)) piece.length
  for (let id = 1; id < btf.endId; id += 7) printLayout(btf, id)
}

const readers: [RegExp, (bytes: Uint8Array) => unknown][] = [
  [/\.btf$|\.o$/, walk],
  [/^vmlinux-/, (bytes) => describeVmlinux(memorySource(bytes))],
  [/^vmlinux-x86_64$/, walk],
]

t.test('cut off at every byte', (t) => {
  for (const [pattern, read] of readers) {
    for (const name of fixtureNames(pattern)) {
      const bytes = fixture(name)
      let cuts = 0
      for (let length = 0; length < bytes.length; length++) {
        if (survives(() => read(bytes.subarray(0, length)))) cuts++
      }
      t.equal(cuts, bytes.length, name)
    }
  }
  const bytes = fixture('types-x86_64.btf')
  const accepted = [...bytes.keys()].filter((length) => {
    try {
      return parseBtf(bytes.subarray(0, length))
    } catch {
      return false
    }
  })
  t.same(accepted, [], 'no part of a BTF passes for a whole one')
  t.end()
})

/** A generator of numbers below 2^32 that gives the same ones each run (xorshift32). */
function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

const EXTREMES = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]

t.test('bytes and words changed at random', (t) => {
  for (const [pattern, read] of readers) {
    for (const name of fixtureNames(pattern)) {
      const original = fixture(name)
      const random = randomNumbers(name.length * 7919 + 1)
      const rounds = 500
      let survived = 0
      for (let round = 0; round < rounds; round++) {
        const bytes = new Uint8Array(original)
        const view = new DataView(bytes.buffer)
        for (let n = random() % 4; n >= 0; n--) {
          // half of the changes hit the beginning, where headers are
          const range = random() % 2 ? bytes.length : Math.min(bytes.length, 128)
          const at = random() % (range - 4)
          if (random() % 2) bytes[at] = random()
          else view.setUint32(at, EXTREMES[random() % EXTREMES.length]!, random() % 2 === 0)
        }
        if (survives(() => read(bytes))) survived++
      }
      t.equal(survived, rounds, name)
    }
  }
  t.end()
})
