/* Every object × every kernel: minimized BTF has the types that bpftool keeps, and libbpf relocates as with all BTF. */
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { BtfError, minimizeBtf, openObject, readBtf } from '../../bpf/index.ts'
import { disagreements } from '../bpf/oracle/agreement.ts'
import { compareGraphs, dumpTypes, minimizeWithBpftool } from '../bpf/oracle/bpftool.ts'
import { foreignOracles } from '../bpf/oracle/foreign.ts'
import { buildRelocate, type Relocated } from '../bpf/oracle/libbpf.ts'
import { objectsOfOthers } from '../bpf/oracle/others.ts'
import { coreObjects } from '../helpers/core.ts'
import { decide } from './decide.ts'
import { kernels, type TestKernel } from './kernels.ts'

const real = await kernels()
const others = await objectsOfOthers()
const big = others.filter((path) => path.includes('-eb.elf'))
const little = others.filter((path) => !big.includes(path))
const narrow = (kernel: TestKernel) => /^(i686|mips|armv.*)$/.test(kernel.arch)

interface Oracles {
  relocate: string[]
  bpftool: string[]
}

/** bpftool 7.1's message for input that it does not support and we do. */
const UNABLE = /unsupported kind: fwd/

async function compare(oracles: Oracles, object: string, kernel: string, folder: string) {
  const [theirs, ours] = [join(folder, 'theirs.btf'), join(folder, 'ours.btf')]
  const refusal = await minimizeWithBpftool(kernel, [object], theirs, oracles.bpftool)
  const btf = readBtf(readFileSync(kernel))
  try {
    writeFileSync(ours, minimizeBtf(btf, [openObject(readFileSync(object))]))
  } catch (error) {
    if (!(error instanceof BtfError) || refusal === undefined) throw error
    return []
  }
  const lines: string[] = []
  if (refusal === undefined) {
    if (!readFileSync(theirs).equals(readFileSync(ours))) {
      lines.push(...compareGraphs(await dumpTypes(theirs), await dumpTypes(ours)))
    }
  } else if (!UNABLE.test(refusal)) lines.push(`only bpftool refuses: ${refusal}`)
  const [whole, least] = [
    await decide(oracles.relocate, object, kernel),
    await decide(oracles.relocate, object, ours),
  ]
  if (whole && least) lines.push(...disagreements(withoutIds(whole), withoutIds(least).decisions))
  return lines
}

/** Clears type ids, which differ in minimized BTF. */
function withoutIds(relocated: Relocated): Relocated {
  const decisions = relocated.decisions.map((decision) => {
    const { kind, outcome } = decision
    if (kind !== 'target_type_id' || outcome.is !== 'ok') return decision
    return { ...decision, outcome: { ...outcome, new: 0n } }
  })
  return { ...relocated, decisions }
}

/** Without a `long` in the BTF, libbpf assumes the host's pointer size. So each host matches its kernels. */
const hosts: readonly {
  title: string
  objects: string[]
  kernels: TestKernel[]
  oracles: (folder: string) => Promise<Oracles>
}[] = [
  {
    title: '64 bit, little-endian objects',
    objects: [...coreObjects('el').values(), ...little],
    kernels: real.filter((kernel) => !narrow(kernel)),
    oracles: async (folder) => ({ relocate: [await buildRelocate(folder)], bpftool: ['bpftool'] }),
  },
  {
    title: '32 bit, little-endian objects',
    objects: [...coreObjects('el').values(), ...little],
    kernels: real.filter(narrow),
    oracles: () => foreignOracles('i386'),
  },
  {
    title: '64 bit, big-endian objects',
    objects: [...coreObjects('eb').values(), ...big],
    kernels: real.filter((kernel) => !narrow(kernel)),
    oracles: () => foreignOracles('s390x'),
  },
]

for (const { title, objects, kernels, oracles } of hosts) {
  t.test(`${title}: minimized BTF relocates as all BTF does`, async (t) => {
    const folder = t.testdir()
    const commands = await oracles(folder)
    for (const { name, path } of kernels) {
      const lines: string[] = []
      for (const object of objects) {
        const found = await compare(commands, object, path, folder)
        lines.push(...found.map((line) => `${basename(object)}: ${line}`))
      }
      t.same(lines, [], `${objects.length} objects on ${name}`)
    }
  })
}
