import { createWriteStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { InvalidArgumentError } from 'commander'
import type { Dialect } from '../../bpf/index.ts'
import { Catalog, openStore, openWithPartial, type StoreError } from '../../storage/index.ts'
import { Bundle, type BundleResult } from '../bundle/bundle.ts'
import { type BundleFinding, besideOf } from '../bundle/manifest.ts'
import type { ObjectFile } from '../bundle/member.ts'
import type { BundlePolicy, ProfileName } from '../bundle/profile.ts'
import { type Verification, verifyBundle } from '../bundle/verify.ts'
import { ServiceError } from '../error.ts'
import { jsonOf } from '../json.ts'
import { isPackFile } from '../pack/pack.ts'
import type { Pool } from '../threads/pool.ts'
import { alikeIn } from './alike.ts'
import { type BundleOutcome, partialWarning, replace, warn, writeBeside } from './bundle-file.ts'
import { ALL, withPool } from './for-each-kernel.ts'
import {
  type CommonOptions,
  checkFilter,
  type FilterOptions,
  filterOf,
  readKey,
  serverOf,
} from './input.ts'
import { counted, printable } from './output.ts'

/** The profile that is no archive. */
const PACK = 'pack'

interface ExportOptions extends CommonOptions, FilterOptions {
  profile?: ProfileName | typeof PACK
  object: string[]
  output?: string
  unsupported: BundlePolicy
  zstd?: boolean
  partial?: boolean
  dialect?: Dialect
  secretKey?: string
  verify?: string
  publicKey?: string
}

/** `btfmill export`. Returns the exit status: 1 if the bundle is not complete, or not what its manifest says. */
export async function run(options: ExportOptions): Promise<number> {
  if (options.verify !== undefined) return await verify(options.verify, options)
  if (options.profile === undefined)
    throw new InvalidArgumentError('export needs --profile NAME, or --verify FILE')
  const { profile, dialect } = options
  if (options.partial) checkPartial(options)
  if (profile === PACK && dialect)
    throw new InvalidArgumentError('a pack holds BTF as it is: not with --dialect')
  return profile === PACK ? await makePack(options) : await make({ ...options, profile })
}

/** Errors: wrong usage for what partial BTF is not exported to. */
function checkPartial({ profile, object }: ExportOptions): void {
  if (profile === PACK)
    throw new InvalidArgumentError('a pack has whole BTF only: not with --partial')
  if (object.length > 0)
    throw new InvalidArgumentError(
      'partial BTF cannot be minimized, since what it lacks would look as if the kernel lacked it: --partial goes without --object',
    )
}

type MakeOptions = ExportOptions & { profile: ProfileName }

async function make(options: MakeOptions): Promise<number> {
  try {
    const server = await serverOf(options)
    if (server) {
      if (options.secretKey)
        throw new InvalidArgumentError('--secret-key signs what is made here: not with --server')
      const { makeOn } = await import('./export-on.ts')
      return finish(await makeOn(server, await readObjects(options), options), options)
    }
    return await withPool(options.object.length > 0 ? ALL : 0, (pool) => makeIn(pool, options))
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'unsupported')
      reportFindings(error.details as unknown as FoundInBundle, options.json ?? false)
    throw error
  }
}

async function makePack(options: ExportOptions): Promise<number> {
  const { makePackFile } = await import('./export-pack.ts')
  const invalid = new InvalidRecords()
  const status = finish(await makePackFile(options, invalid.report), options)
  return invalid.count > 0 ? 1 : status
}

/** Reports and counts records that cannot be used. */
class InvalidRecords {
  count = 0

  readonly report = ({ message }: StoreError): void => {
    this.count++
    console.error(printable(`btfmill: ${message}`))
  }
}

const readObjects = ({ object }: ExportOptions): Promise<ObjectFile[]> =>
  Promise.all(object.map(async (path) => ({ name: basename(path), bytes: await readFile(path) })))

async function makeIn(pool: Pool, options: MakeOptions): Promise<number> {
  const { profile, unsupported, zstd = false, dialect } = options
  const opened = await openStore(options.store, { create: false })
  const secretKey = await readKey(options.secretKey)
  const objects = await readObjects(options)
  const invalid = new InvalidRecords()
  const { store, catalog } = options.partial
    ? await openWithPartial(opened, invalid.report)
    : { store: opened, catalog: await Catalog.open(opened, invalid.report) }
  const form = { ...(secretKey !== undefined && { secretKey }), ...(dialect && { dialect }) }
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const settings = { store, catalog, pool, profile, filter, objects, unsupported, zstd, ...form }
  const findAlike = objects.length > 0 ? await alikeIn(opened) : undefined
  const bundle = await Bundle.open({ ...settings, findAlike })
  const partial = catalog.list(filter).filter(({ record }) => record.origin === 'headers')
  warn([...bundle.warnings, ...partialWarning([...partial.map(({ record }) => record.kernel)])])
  const path = options.output ?? bundle.file
  const status = finish({ result: await write(bundle, path), path }, options)
  return invalid.count > 0 ? 1 : status
}

/** Reports a bundle. Returns the exit status. */
function finish(
  { result, path }: { result: BundleOutcome; path: string },
  { json = false, unsupported }: ExportOptions,
): number {
  report(result, path, json)
  return isWhole(result, unsupported) ? 0 : 1
}

/** Writes the archive in one step, and the manifest and signature beside it; `-` is standard output, with neither. */
async function write(bundle: Bundle, path: string): Promise<BundleResult> {
  if (path === '-') {
    await pipeline(bundle.archive(), process.stdout)
    return await bundle.result
  }
  return await replace(path, async (temporary) => {
    await pipeline(bundle.archive(), createWriteStream(temporary, { flush: true }))
    const result = await bundle.result
    if (bundle.manifestPlace === 'beside') await writeBeside(path, result)
    return result
  })
}

function report(result: BundleOutcome, path: string, json: boolean): void {
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

/** Tells whether every kernel is in the bundle that should be. */
function isWhole({ kernels, findings }: BundleOutcome, policy: BundlePolicy): boolean {
  const missing = findings.some(
    ({ code, included }) => code === 'damaged' || (!included && policy === 'include'),
  )
  return kernels > 0 && !missing
}

/** Compares a bundle with its manifest, which is in the bundle or beside it. */
async function verify(path: string, { publicKey, json }: ExportOptions): Promise<number> {
  if (await isPackFile(path)) {
    const { verifyPackFile } = await import('./export-pack.ts')
    const verified = await verifyPackFile(path, publicKey)
    return reportVerified(path, verified, 'every kernel was rebuilt', json, {})
  }
  const { readTree } = await import('../../generator/index.ts')
  const beside = besideOf(path)
  const [manifest, signature] = await Promise.all([
    readIfThere(beside.manifest),
    readIfThere(beside.signature),
  ])
  const { kernels, signed, problems } = await verifyBundle(
    readTree(path, () => true),
    { ...(manifest && { manifest }), ...(signature && { signature }) },
    await readKey(publicKey),
  )
  const whose = signed ? 'valid signature' : 'signature not verified: no --public-key'
  return reportVerified(path, { kernels, problems }, whose, json, { signed })
}

/** Prints what verifying found. Returns the exit status. */
function reportVerified(
  path: string,
  { kernels, problems }: Pick<Verification, 'kernels' | 'problems'>,
  good: string,
  json: boolean | undefined,
  more: Partial<Pick<Verification, 'signed'>>,
): number {
  for (const problem of problems)
    console.log(json ? jsonOf(problem) : printable(`${problem.path}: ${problem.message}`))
  if (json) console.log(jsonOf({ summary: { path, kernels, ...more, wrong: problems.length } }))
  else if (problems.length === 0)
    console.log(printable(`${path}: ${counted(kernels, 'kernel')}; ${good}`))
  return problems.length === 0 ? 0 : 1
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  return await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
}
