/* btfmill commands that change a store, as processes that may be killed, and inputs for them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { generateFiles } from '../../generator/index.ts'
import { Catalog, generateKeys, getBlob, openStore } from '../../storage/index.ts'
import type { Random } from '../fuzz/random.ts'
import { MAIN } from '../helpers/command.ts'
import { makePackage } from '../helpers/package.ts'
import { makeVmlinux } from '../helpers/vmlinux.ts'

const PACKAGES = 3
/** Different BTFs of one kernel, as from a newer pahole or another tree. */
const VARIANTS = 4
/** Foreign kernels in total, and per import. */
const OTHERS = 20
const IMPORTED = 3

export interface Inputs {
  /** directory for unpacked files */
  scratch: string
  keyFile: string
  publicKey: string
  /** paths of all packages, by variant */
  packages: string[][]
  /** one raw BTF per variant */
  btfs: Buffer[]
  /** directory of the tree to import */
  tree: string
  /** file of the bundle to export */
  bundle: string
}

/** Makes the inputs in a directory. Takes some seconds. */
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
    bundle: at('bundle.tar.gz'),
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
  /** arguments of `btfmill`, without the store */
  args(inputs: Inputs, random: Random): string[]
  /** text of its output when it begins to write; without one, nothing tells */
  begins?: string
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
  verify: {
    args: ({ keyFile }) => ['verify', '--repair', '--secret-key', keyFile],
    begins: '"repaired":true',
  },
  export: { args: ({ bundle }) => ['export', '--profile', 'tree', '-o', bundle] },
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

/** When to kill a run: milliseconds after its start, or after it began to write. */
export interface Life {
  from: 'start' | 'begin'
  milliseconds: number
}

export interface Ended {
  killed: boolean
  /** milliseconds since its start, and since it began to write, if it did */
  start: number
  begin: number | undefined
}

/** Runs `btfmill` until it ends or is killed. Rejects if it fails by itself. */
export async function runFor(
  { from, milliseconds }: Life,
  { begins }: Run,
  args: readonly string[],
): Promise<Ended> {
  const started = performance.now()
  // half of what a run costs is to compile btfmill
  const env = { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), 'btfmill-compile') }
  const child = spawn(process.execPath, [MAIN, ...args, '--json'], { env })
  child.stdin.end()
  const kill = () => setTimeout(() => child.kill('SIGKILL'), milliseconds)
  let clock = from === 'start' ? kill() : undefined
  let began: number | undefined
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    said += piece
    if (began !== undefined || begins === undefined || !said.includes(begins)) return
    began = performance.now()
    if (from === 'begin') clock = kill()
  })
  const complaint = text(child.stderr)
  // not 'close': its children, such as pahole, may hold the pipes longer
  const [status, signal] = await once(child, 'exit')
  clearTimeout(clock)
  const killed = signal === 'SIGKILL'
  if (!killed && status !== 0)
    throw new Error(`btfmill ${args[0]}: ${status}: ${await complaint}${said}`)
  const now = performance.now()
  return { killed, start: now - started, begin: began && now - began }
}
