/* Every object × every kernel, and objects that no compiler writes: our relocation decides and patches as libbpf's. */
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { BtfError, openObject, readBtf, relocate } from '../../bpf/index.ts'
import { differences } from '../bpf/oracle/agreement.ts'
import { foreignOracles } from '../bpf/oracle/foreign.ts'
import { buildRelocate } from '../bpf/oracle/libbpf.ts'
import { objectsOfOthers } from '../bpf/oracle/others.ts'
import { tamper } from '../bpf/oracle/tamper.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { decide } from './decide.ts'
import { kernels } from './kernels.ts'

const real = await kernels()
const others = await objectsOfOthers()
/** cilium/ebpf's test data has both byte orders. */
const big = others.filter((path) => path.includes('-eb.elf'))
const little = others.filter((path) => !big.includes(path))

/** Returns the differing lines, for the test's output, and the number of decisions. */
async function compare(command: readonly string[], objects: readonly string[], kernel: string) {
  const btf = readBtf(readFileSync(kernel))
  const lines: string[] = []
  let decisions = 0
  for (const object of objects) {
    const theirs = await decide(command, object, kernel)
    if (!theirs || theirs.decisions.length === 0) continue
    const ours = relocate(openObject(readFileSync(object)), btf)
    lines.push(...differences(theirs, ours).map((line) => `${basename(object)}: ${line}`))
    decisions += theirs.decisions.length
  }
  return { lines, decisions }
}

t.test('little-endian objects relocate as with libbpf on every kernel', async (t) => {
  const harness = await buildRelocate(t.testdir())
  const objects = [...coreObjects('el').values(), ...little]
  for (const { name, path } of real) {
    const { lines, decisions } = await compare([harness], objects, path)
    t.same(lines, [], `${name}: ${decisions} decisions`)
    t.ok(decisions > 1000)
  }
})

t.test('big-endian objects relocate as with libbpf on a big-endian host', async (t) => {
  const { relocate: command } = await foreignOracles('s390x')
  const objects = [...coreObjects('eb').values(), ...big]
  for (const { name, path } of real) {
    const { lines, decisions } = await compare(command, objects, path)
    t.same(lines, [], `${name}: ${decisions} decisions`)
    t.ok(decisions > 300)
  }
})

t.test('relocations that no compiler writes are decided as by libbpf', async (t) => {
  const directory = t.testdir()
  const harness = await buildRelocate(directory)
  const targets = [...littleKernels().values()].map((path) => {
    return { path, btf: readBtf(readFileSync(path)) }
  })
  const file = join(directory, 'tampered.o')
  for (const [name, path] of coreObjects('el')) {
    const lines: string[] = []
    let refused = 0
    for (let seed = 0; seed < 500; seed++) {
      const tampered = tamper(readFileSync(path), seed)
      if (!tampered) continue
      const target = targets[seed % targets.length]!
      writeFileSync(file, tampered.object)
      const theirs = await decide([harness], file, target.path)
      if (!theirs) continue
      if (theirs.decisions.some(({ outcome }) => outcome.is === 'fatal')) refused++
      try {
        const ours = relocate(openObject(tampered.object), target.btf)
        lines.push(
          ...differences(theirs, ours, tampered.object).map(
            (line) => `${seed} ${tampered.change}: ${line}`,
          ),
        )
      } catch (error) {
        // for a root type id that the object lacks, we refuse the object, libbpf only the relocation
        if (!(error instanceof BtfError) || error.code !== 'invalid_type_id') throw error
        if (refused === 0) lines.push(`${seed} ${tampered.change}: ${error.message}`)
      }
    }
    t.same(lines, [], `${name}: ${refused} refused`)
  }
})
