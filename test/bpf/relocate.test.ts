import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import t from 'tap'
import { openObject, parseBtf, readBtf, relocate } from '../../bpf/index.ts'
import { coreObjects, littleKernels } from './core.ts'
import { disagreements, type Ours } from './oracle/agreement.ts'
import { buildRelocate, relocateWithLibbpf } from './oracle/libbpf.ts'

const objects = coreObjects('el')
const kernels = littleKernels()
/** libbpf sizes pointers and shifts for the machine it runs on, so these are the kernels whose answers it can give. */
const nativeKernels = ['i686', 'x86_64'].map((machine) => kernels.get(machine)!)

const open = (path: string) => openObject(readFileSync(path))
const outcomes = (object: string, kernel: string) =>
  relocate(open(objects.get(object)!), readBtf(readFileSync(kernels.get(kernel)!))).relocations

t.test('every relocation is decided as libbpf decides it', async (t) => {
  const harness = await buildRelocate(t.testdir())
  for (const [name, path] of objects) {
    const object = open(path)
    let decisions = 0
    let patched = 0
    for (const file of nativeKernels) {
      const theirs = await relocateWithLibbpf([harness], path, file)
      const { relocations, code } = relocate(object, readBtf(readFileSync(file)))
      const ours = relocations.map(
        ({ relocation, instruction, outcome }): Ours => ({
          section: relocation.section,
          index: relocation.index,
          instruction,
          outcome,
        }),
      )
      t.same(disagreements(theirs, ours), [], `${name} on ${basename(file)}`)
      decisions += ours.length
      for (const { relocation, program, instruction } of relocations) {
        const theirCode = theirs.programs.get(program.name)
        // an instruction in a subprogram moves, and a program that libbpf gave up holds nothing
        if (!theirCode || theirCode.instructions.length === 0 || program.size === 0) continue
        const at = relocation.offset
        const mine = Buffer.from(code.get(relocation.section)!.subarray(at, at + 8))
        const their = theirCode.instructions.subarray(instruction * 8, instruction * 8 + 8)
        if (!mine.equals(their)) {
          t.equal(mine.toString('hex'), their.toString('hex'), `${name} ${relocation.index}`)
        }
        patched++
      }
    }
    t.pass(`${name}: ${decisions} decisions, ${patched} instructions`)
  }
})

t.test('all 13 kinds are among them, and every answer', (t) => {
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

t.test('what the object’s byte order and pointers change', (t) => {
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

t.test('an object of another machine, or without .BTF.ext, has an error with a name', (t) => {
  const elf = readFileSync(new URL('../fixtures/bpf/built/vmlinux-x86_64', import.meta.url))
  t.throws(() => openObject(elf), { code: 'unsupported' })
  const bytes = readFileSync(objects.get('plain')!)
  bytes.write('.XTF.ext', bytes.indexOf('.BTF.ext\0'))
  t.throws(() => openObject(bytes), { code: 'missing_section', message: /\.BTF\.ext/ })
  t.end()
})

t.test('a kernel with nothing in it: absent and poisoned, nothing fatal', (t) => {
  const empty = parseBtf(
    Buffer.from('9feb010018000000000000000000000000000000010000000000', 'hex').subarray(0, 25),
  )
  const answers = relocate(open(objects.get('exists')!), empty).relocations.map((r) => r.outcome.is)
  t.same([...new Set(answers)].sort(), ['absent', 'poisoned'])
  t.end()
})
