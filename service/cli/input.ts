/* The input of commands: options they share, files, one kernel by its name, or the kernels that filters select. */
import type { Stats } from 'node:fs'
import { access, constants, readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, isAbsolute, join, resolve } from 'node:path'
import { type Btf, BtfError, mergeBtf, openObject, parseBtf, readBtf } from '../../bpf/index.ts'
import type { KeyDirectories, SourceMismatch } from '../../generator/index.ts'
import {
  Catalog,
  getBlob,
  type KernelFilter,
  openStore,
  openWithPartial,
  partialOf,
  type Store,
  StoreError,
  type Wanted,
} from '../../storage/index.ts'
import type { FormFile, RemoteServer } from '../client/remote.ts'
import { parseScratch } from '../config.ts'
import { ServiceError } from '../error.ts'
import * as kernelFilter from '../kernel/filter.ts'
import {
  type Available,
  factsOf,
  type KernelFacts,
  lookUp,
  moduleDigests,
} from '../kernel/lookup.ts'
import { nameOf, parseName } from '../kernel/name.ts'
import { explainNoMatch, type FilterMismatch, findNamed, mismatchOf } from '../kernel/named.ts'
import { didYouMean } from '../kernel/similar.ts'
import { selectTargets, type TargetKernel } from '../kernel/targets.ts'
import { functionsIn } from '../objects/functions.ts'
import { type ReadBtf, readInput } from '../threads/btf-input.ts'
import type { BtfInput } from '../threads/worker.ts'

/** The options of every command that uses a store. */
export interface CommonOptions extends SourceOptions {
  json?: boolean
}

/** The token for a service. */
export interface ServerTokenOptions {
  tokenFile?: string
  /** the token itself, from the environment */
  token?: string | undefined
}

/** The token of a command; the file comes first. Errors: the system's. */
export const tokenOf = async ({
  tokenFile,
  token,
}: ServerTokenOptions): Promise<string | undefined> =>
  (tokenFile ? (await readFile(tokenFile, 'utf8')).trim() : token) || undefined

/** Where kernels come from: a store, or a service in its place. */
export interface SourceOptions extends ServerTokenOptions {
  store: string
  server?: string | undefined
}

/** The service of a command; undefined if it works on a store. Errors: those of `RemoteServer`; the system's. */
export async function serverOf(options: SourceOptions): Promise<RemoteServer | undefined> {
  const { server } = options
  if (!server) return undefined
  const { RemoteServer } = await import('../client/remote.ts')
  const token = await tokenOf(options)
  return new RemoteServer(server, token ? { token } : {})
}

/** Opens the kernels of a command, to be read only. Errors: those of `serverOf` and `openStore`. */
export async function openSource(options: SourceOptions): Promise<Store> {
  const server = await serverOf(options)
  if (!server) return await openStore(options.store, { create: false })
  const { RemoteStore } = await import('../client/remote-store.ts')
  return new RemoteStore(server)
}

/** The source of a command as its messages name it. */
export const sourceName = ({ store, server }: SourceOptions): string =>
  server ? new URL(server).origin : store

/** The filters as the command line has them: lists, where a flag may be repeated. */
export interface FilterOptions<W extends Wanted = Wanted> {
  distro?: W
  distroVersion?: W
  arch?: W
  release?: W
}

/** The filter that options make. */
export function filterOf<W extends Wanted>({ distroVersion, ...options }: FilterOptions<W>) {
  return kernelFilter.filterOf<W>({
    ...options,
    ...(distroVersion !== undefined && { version: distroVersion }),
  })
}

const FLAGS: Readonly<Record<SourceMismatch['field'], string>> = {
  source: '--source',
  distro: '--distro',
  version: '--distro-version',
  arch: '--arch',
  release: '--release',
}

/**
 * Says which value of a filter no kernel of a catalog matches, and the values near it; undefined if each matches one and
 * the whole filter does, too.
 */
export function noMatchMessage(
  catalog: Catalog,
  filter: KernelFilter,
  store: string,
): string | undefined {
  const reason = explainNoMatch(catalog, filter)
  if (reason) return `no kernels match ${textOf(reason)}`
  return catalog.list(filter).next().done ? `no kernels in ${store}` : undefined
}

/** Throws for a filter with a value that no kernel of a catalog matches. Errors: `unknown_kernel`. */
export function checkFilter(catalog: Catalog, filter: KernelFilter, store: string): void {
  const message = noMatchMessage(catalog, filter, store)
  if (message !== undefined) throw new ServiceError('unknown_kernel', message)
}

/** The error of a filter with a value that no source, or no package, matches. */
export const unknownSource = ({ field, value, values }: SourceMismatch): ServiceError =>
  new ServiceError(
    'unknown_source',
    `no ${field === 'release' ? 'packages match' : 'source has'} ${textOf(mismatchOf(field, value, values))}`,
  )

function textOf({ field, value, similar, values }: FilterMismatch<keyof typeof FLAGS>): string {
  const hint = similar.length > 0 ? didYouMean(similar) : `there are ${values.join(', ')}`
  return `${FLAGS[field]} ${value}: ${values.length > 0 ? hint : 'there are none'}`
}

const invalidFile = (path: string, why: string, cause?: unknown): ServiceError =>
  new ServiceError('invalid_file', `invalid file "${path}": ${why}`, { cause })

/** Throws for a path that is not a readable file. Errors: `invalid_file`. */
export async function checkReadable(path: string, orFolder = false): Promise<void> {
  const found = await statReadable(path)
  if (found.isFile() || (orFolder && found.isDirectory())) return
  throw invalidFile(path, `expected a regular file${orFolder ? ' or a folder' : ''}`)
}

/** Throws for a path of no key; a pipe may have one. Errors: `invalid_file`. */
export async function checkKey(path: string): Promise<void> {
  const found = await statReadable(path)
  if (found.isDirectory()) throw invalidFile(path, 'expected a file, not a folder')
}

async function statReadable(path: string): Promise<Stats> {
  try {
    await access(path, constants.R_OK)
    return await stat(path)
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException
    const why = { ENOENT: 'it does not exist', EACCES: 'it is not readable' }[code]
    throw invalidFile(path, why ?? message, cause)
  }
}

/** Tells whether a path is of an existing file. */
export async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
}

/** Where every user's keys are, such as those in an image. */
const SYSTEM_KEYS = '/usr/local/share/btfmill/keys'

/** The directory that fetched keys are written to: of `--keys`, or the user's own (XDG Base Directory, $XDG_DATA_HOME). */
export function ownKeys(keys: string): string {
  if (keys) return resolve(keys)
  const { XDG_DATA_HOME: data = '' } = process.env
  return join(isAbsolute(data) ? data : join(homedir(), '.local/share'), 'btfmill/keys')
}

/** The directories with keys that sources use: that of `--keys` alone, or the user's and the system's beside keyrings. */
export function keyDirectories(keys: string): KeyDirectories {
  return keys ? { paths: [ownKeys(keys)], only: true } : { paths: [ownKeys(''), SYSTEM_KEYS] }
}

/** The command that fetches the keys of sources; without ids, of all. */
export function fetchKeysCommand(
  ids: readonly string[],
  { keys = '', sources = '' }: { keys?: string; sources?: string },
): string {
  const flags = [
    ...ids.map((id) => `--source ${id}`),
    ...(sources ? [`--sources ${sources}`] : []),
    ...(keys ? [`--keys ${keys}`] : []),
  ]
  return ['btfmill sources --fetch-keys', ...flags].join(' ')
}

/** The text of a file with a key; undefined without a path. Errors: `invalid_file`. */
export async function readKey(path: string | undefined): Promise<string | undefined> {
  if (!path) return undefined
  await checkKey(path)
  return await readFile(path, 'utf8')
}

/**
 * The scratch directory and the limits of jobs, in bytes, as the generator takes them. It chooses what is not given: a
 * `memory` of 0, a part of `scratch`.
 */
export function budgetOf(memory: number, scratch: string) {
  const { directory, size } = parseScratch(scratch) ?? {}
  return {
    ...(directory !== undefined && { scratch: directory }),
    budget: { ...(memory > 0 && { memory }), ...(size !== undefined && { disk: size }) },
  }
}

/** Reads a BPF object. Errors: those of `openObject`, with the file's name. */
export async function readObject(path: string): Promise<FormFile> {
  await checkReadable(path)
  const bytes = await readFile(path)
  parseFile(path, bytes, openObject)
  return { name: basename(path), bytes }
}

interface OpenPartsOptions {
  /** the kernel whose BTF a file with split BTF continues, in the same forms */
  base?: string | undefined
  /** with the types of its modules; for a kernel of the store */
  withModules?: boolean | undefined
  /** a file is partial BTF; a kernel of which the store has no other is found, too */
  partial?: boolean | undefined
}

/**
 * Opens the BTF of a file, raw or ELF, or of a kernel of a store, named as `findNamed` takes it. Errors:
 * `unknown_kernel`, `ambiguous` with the kernels or builds in the message; those of `readBtf`, with the file's name;
 * those of `lookUp`.
 */
export async function openKernel(
  what: string,
  source: SourceOptions,
  { base, withModules = false }: OpenPartsOptions = {},
): Promise<Btf> {
  const opened = await openParts(what, source, { base, withModules })
  if (!withModules) return opened.split ?? opened.kernel
  const modules = opened.modules.map(async (read) =>
    parseBtf(await read(), { base: opened.kernel }),
  )
  return parseBtf(mergeBtf(opened.kernel, await Promise.all(modules)))
}

/** A kernel's BTF, and readers of the raw split BTF of its modules. */
interface KernelParts {
  kernel: Btf
  /** the module that a file has the split BTF of; it is in `modules` too */
  split?: Btf
  modules: readonly (() => Promise<Uint8Array>)[]
  /** reads the names of its functions, where they are known */
  functions?: () => Promise<Uint8Array | undefined>
  /** what its record says of it; a file has none */
  facts?: KernelFacts
}

async function openParts(
  what: string,
  source: SourceOptions,
  { base, withModules = false, partial = false }: OpenPartsOptions,
): Promise<KernelParts> {
  const bytes = await readFile(what).catch((error: NodeJS.ErrnoException) => {
    if (!['ENOENT', 'ENOTDIR'].includes(error.code ?? '')) throw error
    return undefined
  })
  if (bytes && base === undefined) {
    const kernel = parseFile(what, bytes, readBtf)
    return { kernel, modules: [], ...(partial && { facts: { partial } }) }
  }
  if (bytes && base !== undefined) {
    const kernel = await openKernel(base, source)
    const split = parseFile(what, bytes, (raw) => readBtf(raw, { base: kernel }))
    return { kernel, split, modules: [async () => split.bytes] }
  }
  const opened = await openSource(source)
  const record = await findRecord(opened, what, withModules).catch((error) => {
    const isUnknown = error instanceof ServiceError && error.code === 'unknown_kernel'
    if (!partial || !isUnknown) throw error
    return findRecord(partialOf(opened), what, withModules)
  })
  const store = record.origin === 'headers' ? partialOf(opened) : opened
  const { symbols } = record
  return {
    kernel: parseBtf(await getBlob(store, record.btf.sha256)),
    modules: moduleDigests(record).map((sha256) => () => getBlob(store, sha256)),
    facts: factsOf(record),
    ...(symbols && { functions: () => functionsIn(store, symbols) }),
  }
}

/** A full name is looked up by itself; any other needs the whole catalog, as do the names near it. */
async function findRecord(store: Store, what: string, withModules: boolean): Promise<Available> {
  const kernel = /[*?[]/.test(what) ? undefined : parseName(what) // names hold no glob
  const exact = kernel && (await lookUpOrNone(new Catalog(store), kernel, withModules))
  if (exact) return exact
  const catalog = await Catalog.open(store)
  return await listBuilds(lookUp(catalog, findNamed(catalog, what), { withModules }))
}

async function lookUpOrNone(
  catalog: Catalog,
  kernel: Parameters<typeof lookUp>[1],
  withModules: boolean,
): Promise<Available | undefined> {
  return await listBuilds(lookUp(catalog, kernel, { withModules })).catch((error) => {
    if (error instanceof ServiceError && error.code === 'unknown_kernel') return undefined
    throw error
  })
}

/** Names the builds of an ambiguous kernel in the message: here nothing else shows the details. */
async function listBuilds(found: Promise<Available>): Promise<Available> {
  return await found.catch((error) => {
    if (!(error instanceof ServiceError) || error.code !== 'ambiguous') throw error
    const builds = error.details.builds as readonly (Available['kernel'] & {
      packageVersion: string
    })[]
    const [first] = builds
    const versions = builds.map(({ packageVersion }) => packageVersion)
    const message = `${nameOf(first!)} has several builds with different BTF, of the package versions ${versions.join(', ')}`
    throw new ServiceError('ambiguous', message, { cause: error })
  })
}

function parseFile<T>(path: string, bytes: Buffer, parse: (bytes: Buffer) => T): T {
  try {
    return parse(bytes)
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
    throw new BtfError(error.code, `${path}: ${error.message}`)
  }
}

/** A kernel that a command works on: its BTF is read when it is its turn; its name is the given one, or the kernel's. */
export interface ChosenKernel extends Omit<TargetKernel, 'btf' | 'modules' | 'symbols' | 'facts'> {
  /** what its record says of it, where it has one */
  readonly facts?: () => Promise<KernelFacts | undefined>
  readonly read: () => Promise<BtfInput>
  /** reads the same, checked before a thread gets it: for BTF that a thread has found to be damaged */
  readonly checked?: Pick<ChosenKernel, 'read' | 'modules'>
  /** lists the readers of the BTF of its modules */
  readonly modules?: () => Promise<readonly (() => Promise<BtfInput>)[]>
  /** reads the names of its functions, where they are known */
  readonly functions?: () => Promise<Uint8Array | undefined>
  /** what the store has of it; a file has none */
  readonly stored?: Pick<TargetKernel, 'btf' | 'symbols'> & { hasModules: boolean }
}

/** The options of a command that works on one kernel, or on those of the store that match. */
export interface KernelFlags {
  btf?: string
  /** the kernel whose BTF the split BTF of `btf` continues */
  base?: string
  /** also kernels of which there is only partial BTF; a file of `btf` is such */
  partial?: boolean
}

/**
 * The kernel of `--btf`, or the kernels of the store that match the filter, in order of their names; of several builds
 * with the same BTF the first. Invalid records go to `onInvalid`. Errors: `unknown_kernel` where none matches; those of
 * `Store`.
 */
export async function chosenKernels(
  { btf, base, partial = false, ...source }: KernelFlags & SourceOptions,
  filter: KernelFilter,
  onInvalid: (error: StoreError) => void,
): Promise<ChosenKernel[]> {
  if (btf !== undefined) {
    let opening: Promise<KernelParts> | undefined
    const open = () => {
      opening ??= openParts(btf, source, { base, partial })
      return opening
    }
    const read = async () => (await open()).kernel.bytes
    const functions = async () => await (await open()).functions?.()
    const facts = async () => (await open()).facts
    return [{ name: btf, read, modules: async () => (await open()).modules, functions, facts }]
  }
  const opened = await openSource(source)
  const { store, catalog } = partial
    ? await openWithPartial(opened, onInvalid)
    : { store: opened, catalog: await Catalog.open(opened, onInvalid) }
  checkFilter(catalog, filter, sourceName(source))
  const targets = [...selectTargets(catalog, filter)]
  const readers = (read: ReadBtf, { btf, modules }: Pick<TargetKernel, 'btf' | 'modules'>) => ({
    read: () => read(btf),
    modules: async () => modules.map((module) => () => read(module)),
  })
  return targets.map(({ btf, modules, symbols, facts, ...chosen }) => ({
    ...chosen,
    facts: async () => facts,
    ...readers((one) => readInput(store, one), { btf, modules }),
    checked: readers(({ sha256 }) => getBlob(store, sha256), { btf, modules }),
    stored: { btf, hasModules: modules.length > 0, ...(symbols && { symbols }) },
    ...(symbols && { functions: () => functionsIn(store, symbols) }),
  }))
}

/** The error of one kernel. */
export interface KernelError {
  code: string
  message: string
}

/** The error of one kernel, after which a command goes on with the next; any other error is thrown again. */
export function kernelErrorOf(error: unknown): KernelError {
  const ofKernel =
    error instanceof BtfError || error instanceof StoreError || error instanceof ServiceError
  if (!ofKernel) throw error
  const { code, message } = error
  return { code, message }
}
