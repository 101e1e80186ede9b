import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  checkObject,
  minimizeBtf,
  openObject,
  parseBtf,
  readBtf,
  relocate,
} from '../../bpf/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { differences } from './oracle/agreement.ts'
import { buildRelocate, relocateWithLibbpf } from './oracle/libbpf.ts'

const objects = coreObjects('el')
const kernels = littleKernels()
const open = (path: string) => openObject(readFileSync(path))
const outcomes = (object: string, kernel: string) =>
  relocate(open(objects.get(object)!), readBtf(readFileSync(kernels.get(kernel)!))).relocations

t.test(
  'relocate decides every relocation and patches its instruction as libbpf does',
  async (t) => {
    const harness = await buildRelocate(t.testdir())
    for (const [name, path] of objects) {
      for (const [machine, file] of kernels) {
        const theirs = await relocateWithLibbpf([harness], path, file)
        const ours = relocate(open(path), readBtf(readFileSync(file)))
        t.same(differences(theirs, ours), [], `${name} on ${machine}: ${ours.relocations.length}`)
      }
    }
  },
)

t.test('the fixtures have all 13 kinds of relocation and every result', (t) => {
  const kinds = new Set<string>()
  const answers = new Set<string>()
  for (const object of objects.keys()) {
    for (const { relocation, outcome } of outcomes(object, 'x86_64')) {
      kinds.add(relocation.kind)
      answers.add(outcome.is)
    }
  }
  t.equal(kinds.size, 13)
  t.same([...answers].sort(), ['absent', 'fatal', 'ok', 'poisoned'])
  t.end()
})

t.test('the byte order of an object changes no result except offsets, sizes and shifts', (t) => {
  const big = coreObjects('eb')
  for (const [name, path] of objects) {
    const of = (file: string, kernel: string) =>
      relocate(open(file), readBtf(readFileSync(kernels.get(kernel)!))).relocations.filter(
        ({ relocation }) => !/shift/.test(relocation.kind),
      )
    const values = (file: string) =>
      of(file, 's390x')
        .filter(({ relocation }) => !['byte_off', 'byte_sz'].includes(relocation.kind))
        .map(({ outcome }) => (outcome.is === 'ok' ? outcome.new : outcome.is))
    t.same(values(big.get(name)!), values(path), name)
  }
  t.end()
})

t.test('openObject rejects an object of another machine', (t) => {
  const elf = readFileSync(new URL('../fixtures/bpf/built/vmlinux-x86_64', import.meta.url))
  t.throws(() => openObject(elf), { code: 'unsupported' })
  t.end()
})

t.test('an object without .BTF or .BTF.ext needs nothing of a kernel, as libbpf loads it', (t) => {
  const kernel = readBtf(readFileSync(kernels.get('x86_64')!))
  for (const missing of [['.BTF.ext'], ['.BTF'], ['.BTF', '.BTF.ext']]) {
    const bytes = readFileSync(objects.get('task')!)
    for (const name of missing) bytes.write('.XTF', bytes.indexOf(`${name}\0`))
    const object = openObject(bytes)
    const title = `without ${missing.join(' and ')}`
    t.same(relocate(object, kernel).relocations, [], title)
    t.equal(parseBtf(minimizeBtf(kernel, [object])).typeCount, 0, title)
    const { loads, programs } = checkObject(object, kernel)
    t.equal(loads, 'yes', title)
    t.ok(programs.length > 0, 'its programs are listed')
  }
  t.end()
})

t.test('relocating against an empty kernel gives absent and poisoned results, none fatal', (t) => {
  const empty = parseBtf(
    Buffer.from('9feb010018000000000000000000000000000000010000000000', 'hex').subarray(0, 25),
  )
  const answers = relocate(open(objects.get('exists')!), empty).relocations.map((r) => r.outcome.is)
  t.same([...new Set(answers)].sort(), ['absent', 'poisoned'])
  t.end()
})
