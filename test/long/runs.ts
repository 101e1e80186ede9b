/* Runs of btfmill that change a store, as processes that may be killed, with the inputs for them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { generateFiles } from '../../generator/index.ts'
import { Catalog, generateKeys, getBlob, openStore } from '../../storage/index.ts'
import type { Random } from '../fuzz/random.ts'
import { MAIN } from '../helpers/command.ts'
import { makePackage } from '../helpers/package.ts'
import { makeVmlinux } from '../helpers/vmlinux.ts'

const PACKAGES = 3
/** In how many ways the BTF of one kernel comes: from a newer pahole, from another tree. */
const VARIANTS = 4
/** How many kernels of others there are, and how many are imported at once. */
const OTHERS = 20
const IMPORTED = 3

export interface Inputs {
  /** of runs, while they unpack */
  scratch: string
  keyFile: string
  publicKey: string
  /** for each variant the paths of all packages */
  packages: string[][]
  /** of each variant one raw BTF */
  btfs: Buffer[]
  /** where a tree to import is made */
  tree: string
}

/** Makes them in a directory, in some seconds. */
export async function makeInputs(directory: string): Promise<Inputs> {
  const at = (name: string) => join(directory, name)
  const { publicKey, secretKey } = generateKeys()
  writeFileSync(at('key'), secretKey)
  const inputs: Inputs = {
    scratch: at('scratch'),
    keyFile: at('key'),
    publicKey,
    packages: [],
    btfs: [],
    tree: at('tree'),
  }
  for (let variant = 0; variant < VARIANTS; variant++) {
    const packages = makePackages(at(`variant-${variant}`), variant)
    inputs.packages.push(packages)
    inputs.btfs.push(await btfOf(packages[0]!, inputs.scratch))
  }
  return inputs
}

function makePackages(directory: string, variant: number): string[] {
  mkdirSync(directory)
  return Array.from({ length: PACKAGES }, (_, i) => {
    const [image, release] = [join(directory, 'vmlinux'), `6.1.0-${i}-test`]
    makeVmlinux(image, { release, defines: { STACK: 256 + variant * PACKAGES + i } })
    return makePackage(directory, image, { release })
  })
}

async function btfOf(file: string, scratch: string): Promise<Buffer> {
  const store = await openStore('memory:')
  await generateFiles([file], {}, { store, scratch })
  const [entry] = (await Catalog.open(store)).list()
  return await getBlob(store, entry!.record.btf!.sha256)
}

interface Run {
  /** of `btfmill`, but for the store */
  args(inputs: Inputs, random: Random): string[]
  /** what it prints when it begins to write */
  begins: string
}

export const RUNS = {
  generate: {
    args: ({ packages, scratch, keyFile }, random) => [
      ...['generate', '--distro', 'debian', '--distro-version', '12', '--scratch', scratch],
      ...['--archive', '--secret-key', keyFile, '--jobs', '2', ...random.pick(packages)],
    ],
    begins: '"stage":"publish"',
  },
  import: {
    args(inputs, random) {
      fillTree(inputs, random)
      return ['import', '--secret-key', inputs.keyFile, inputs.tree]
    },
    begins: '"state":"imported"',
  },
  gc: { args: () => ['gc'], begins: '"key":"blobs/' },
} as const satisfies Record<string, Run>

export type RunName = keyof typeof RUNS

export const RUN_NAMES = Object.keys(RUNS) as RunName[]

function fillTree({ tree, btfs }: Inputs, random: Random): void {
  rmSync(tree, { recursive: true, force: true })
  for (let i = 0; i < IMPORTED; i++) {
    const path = join(tree, `ubuntu/20.04/x86_64/5.4.0-${random.below(OTHERS)}-generic.btf`)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, random.pick(btfs))
  }
}

/** When it is killed: so many milliseconds after it started, or after it began to write. */
export interface Life {
  from: 'start' | 'begin'
  milliseconds: number
}

export interface Ended {
  killed: boolean
  /** milliseconds from its start, and from when it began to write, if it did */
  start: number
  begin: number | undefined
}

/** Runs `btfmill` until it ends or is killed. Rejects where it failed by itself. */
export async function runFor(
  { from, milliseconds }: Life,
  { begins }: Run,
  args: readonly string[],
): Promise<Ended> {
  const started = performance.now()
  const child = spawn(process.execPath, [MAIN, ...args, '--json'])
  child.stdin.end()
  const kill = () => setTimeout(() => child.kill('SIGKILL'), milliseconds)
  let clock = from === 'start' ? kill() : undefined
  let began: number | undefined
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    said += piece
    if (began !== undefined || !said.includes(begins)) return
    began = performance.now()
    if (from === 'begin') clock = kill()
  })
  const complaint = text(child.stderr)
  // not 'close': what it started, as pahole, may hold the pipes a while longer
  const [status, signal] = await once(child, 'exit')
  clearTimeout(clock)
  const killed = signal === 'SIGKILL'
  if (!killed && status !== 0) throw new Error(`btfmill ${args[0]}: ${status}: ${await complaint}`)
  const now = performance.now()
  return { killed, start: now - started, begin: began && now - began }
}
