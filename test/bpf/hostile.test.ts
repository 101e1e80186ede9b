import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  BtfError,
  checkObject,
  describeVmlinux,
  memorySource,
  minimizeBtf,
  openObject,
  parseBtf,
  printHeader,
  printLayout,
  readBtf,
  relocate,
} from '../../bpf/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { fixture, fixtureNames } from '../helpers/fixtures.ts'

/** Runs a reader on invalid bytes. A value or a BtfError is correct; anything else is a defect. */
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

const kernel = readBtf(readFileSync(littleKernels().get('x86_64')!))

/** Relocates an invalid object against a valid kernel, and a valid object against an invalid kernel. */
function relocateObject(bytes: Uint8Array): void {
  const object = openObject(bytes)
  relocate(object, kernel)
  checkObject(object, kernel)
  minimizeBtf(kernel, [object])
}

const objects = ['task', 'match', 'type', 'bitfield'].map((name) =>
  openObject(readFileSync(coreObjects('el').get(name)!)),
)

function relocateAgainst(bytes: Uint8Array): void {
  const btf = readBtf(bytes)
  for (const object of objects) relocate(object, btf)
  minimizeBtf(btf, objects)
}

type Read = (bytes: Uint8Array) => unknown
interface Input {
  readonly name: string
  readonly bytes: Buffer
  readonly read: Read
}

const fixtures = (pattern: RegExp, read: Read): Input[] =>
  fixtureNames(pattern).map((name) => ({ name, bytes: fixture(name), read }))
const files = (named: Map<string, string>, names: readonly string[], read: Read): Input[] =>
  names.map((name) => ({ name, bytes: readFileSync(named.get(name)!), read }))

const inputs: readonly Input[] = [
  ...fixtures(/\.btf$|\.o$/, walk),
  ...fixtures(/^vmlinux-/, (bytes) => describeVmlinux(memorySource(bytes))),
  ...fixtures(/^vmlinux-x86_64$/, walk),
  ...files(coreObjects('el'), ['task', 'match', 'type', 'enum64', 'bitfield'], relocateObject),
  ...files(littleKernels(), ['x86_64', 's390x'], relocateAgainst),
]

t.test('every reader gives a value or a BtfError for input cut at any byte', (t) => {
  for (const { name, bytes, read } of inputs) {
    let cuts = 0
    for (let length = 0; length < bytes.length; length++) {
      if (survives(() => read(bytes.subarray(0, length)))) cuts++
    }
    t.equal(cuts, bytes.length, name)
  }
  const bytes = fixture('types-x86_64.btf')
  const accepted = [...bytes.keys()].filter((length) => {
    try {
      return parseBtf(bytes.subarray(0, length))
    } catch {
      return false
    }
  })
  t.same(accepted, [], 'no truncated BTF is accepted')
  t.end()
})

/** A generator of numbers below 2^32, equal in every run (xorshift32). */
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

t.test('every reader gives a value or a BtfError for randomly changed input', (t) => {
  for (const { name, bytes: original, read } of inputs) {
    const random = randomNumbers(original.length)
    const rounds = 400
    let survived = 0
    for (let round = 0; round < rounds; round++) {
      const bytes = new Uint8Array(original)
      const view = new DataView(bytes.buffer)
      for (let n = random() % 4; n >= 0; n--) {
        // half of the changes are at the beginning, where the headers are
        const range = random() % 2 ? bytes.length : Math.min(bytes.length, 128)
        const at = random() % (range - 4)
        if (random() % 2) bytes[at] = random()
        else view.setUint32(at, EXTREMES[random() % EXTREMES.length]!, random() % 2 === 0)
      }
      if (survives(() => read(bytes))) survived++
    }
    t.equal(survived, rounds, name)
  }
  t.end()
})
