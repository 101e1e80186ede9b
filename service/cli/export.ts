import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { readFile, rename, rm } from 'node:fs/promises'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { InvalidArgumentError } from 'commander'
import { Catalog, openStore, type StoreError } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { Bundle, type BundleResult } from '../bundle/bundle.ts'
import { type BundleFinding, besideOf } from '../bundle/manifest.ts'
import type { BundlePolicy, ProfileName } from '../bundle/profile.ts'
import { verifyBundle } from '../bundle/verify.ts'
import { ServiceError } from '../error.ts'
import { jsonOf } from '../json.ts'
import type { Pool } from '../threads/pool.ts'
import { ALL, withPool } from './for-each-kernel.ts'
import {
  type CommonOptions,
  checkFilter,
  type FilterOptions,
  filterOf,
  readSecretKey,
} from './input.ts'
import { counted, printable } from './output.ts'

interface ExportOptions extends CommonOptions, FilterOptions {
  profile?: ProfileName
  object: string[]
  output?: string
  unsupported: BundlePolicy
  zstd?: boolean
  secretKey?: string
  verify?: string
  publicKey?: string
}

/** `btfmill export`. Returns the exit status: 1 if the bundle is not complete, or not what its manifest says. */
export async function run(options: ExportOptions): Promise<number> {
  if (options.verify !== undefined) return await verify(options.verify, options)
  if (options.profile === undefined)
    throw new InvalidArgumentError('export needs --profile NAME, or --verify FILE')
  return await make({ ...options, profile: options.profile })
}

async function make(options: ExportOptions & { profile: ProfileName }): Promise<number> {
  try {
    return await withPool(options.object.length > 0 ? ALL : 0, (pool) => makeIn(pool, options))
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'unsupported')
      reportFindings(error.details as unknown as FoundInBundle, options.json ?? false)
    throw error
  }
}

async function makeIn(
  pool: Pool,
  options: ExportOptions & { profile: ProfileName },
): Promise<number> {
  const { profile, unsupported, zstd = false, json = false } = options
  const store = await openStore(options.store, { create: false })
  const secretKey = await readSecretKey(options.secretKey)
  const objects = await Promise.all(
    options.object.map(async (path) => ({ name: basename(path), bytes: await readFile(path) })),
  )
  let invalid = 0
  const catalog = await Catalog.open(store, ({ message }: StoreError) => {
    invalid++
    console.error(printable(`btfmill: ${message}`))
  })
  const key = secretKey === undefined ? {} : { secretKey }
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const settings = { store, catalog, pool, profile, filter, objects, unsupported, zstd, ...key }
  const bundle = await Bundle.open(settings)
  for (const warning of bundle.warnings) console.error(`btfmill: warning: ${printable(warning)}`)
  const path = options.output ?? bundle.file
  const result = await write(bundle, path)
  report(result, path, json)
  return invalid > 0 || !isWhole(result, unsupported) ? 1 : 0
}

/** Writes the archive in one step, and the manifest and signature beside it; `-` is standard output, with neither. */
async function write(bundle: Bundle, path: string): Promise<BundleResult> {
  if (path === '-') {
    await pipeline(bundle.archive(), process.stdout)
    return await bundle.result
  }
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    await pipeline(bundle.archive(), createWriteStream(temporary, { flush: true }))
    const result = await bundle.result
    if (bundle.manifestPlace === 'beside') {
      const beside = besideOf(path)
      await writeWhole(beside.manifest, result.manifest)
      if (result.signature) await writeWhole(beside.signature, result.signature)
    }
    await rename(temporary, path)
    return result
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}) // the first error is the one to report
    throw error
  }
}

function report(result: BundleResult, path: string, json: boolean): void {
  reportFindings(result, json)
  const { kernels, leftOut: left } = result
  const text = `${path}: ${counted(kernels, 'kernel')}${left > 0 ? `, ${left} left out` : ''}`
  const line = json ? jsonOf({ summary: { path, kernels, left } }) : printable(text)
  if (path === '-') console.error(line)
  else console.log(line)
}

interface FoundInBundle {
  findings: readonly BundleFinding[]
  findingsOmitted?: number
}

/** Prints findings on standard error: standard output may be the archive. */
function reportFindings({ findings, findingsOmitted = 0 }: FoundInBundle, json: boolean): void {
  for (const finding of findings) {
    const { kernel, code, object, message, included } = finding
    const name = [kernel.distro, kernel.version, kernel.arch, kernel.release].join('/')
    const about = object === undefined ? name : `${name}: ${object}`
    const line = `btfmill: ${about}: ${code}, ${included ? 'included' : 'left out'}: ${message}`
    console.error(json ? jsonOf(finding) : printable(line))
  }
  if (findingsOmitted > 0)
    console.error(
      json ? jsonOf({ findingsOmitted }) : `btfmill: further findings: ${findingsOmitted}`,
    )
}

/** Whether every kernel is in the bundle that should be. */
function isWhole({ kernels, findings }: BundleResult, policy: BundlePolicy): boolean {
  const missing = findings.some(
    ({ code, included }) => code === 'damaged' || (!included && policy === 'include'),
  )
  return kernels > 0 && !missing
}

/** Compares a bundle with its manifest, which is in the bundle or beside it. */
async function verify(path: string, { publicKey, json }: ExportOptions): Promise<number> {
  const { readTree } = await import('../../generator/index.ts')
  const beside = besideOf(path)
  const [manifest, signature] = await Promise.all([
    readIfThere(beside.manifest),
    readIfThere(beside.signature),
  ])
  const { kernels, signed, problems } = await verifyBundle(
    readTree(path, () => true),
    { ...(manifest && { manifest }), ...(signature && { signature }) },
    publicKey === undefined ? undefined : await readFile(publicKey, 'utf8'),
  )
  for (const problem of problems)
    console.log(json ? jsonOf(problem) : printable(`${problem.path}: ${problem.message}`))
  const whose = signed ? 'valid signature' : 'signature not verified: no --public-key'
  if (json) console.log(jsonOf({ summary: { path, kernels, signed, wrong: problems.length } }))
  else if (problems.length === 0)
    console.log(printable(`${path}: ${counted(kernels, 'kernel')}; ${whose}`))
  return problems.length === 0 ? 0 : 1
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  return await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
}
