/*
 * Imports BTF that others made, from a btfhub-archive tree or a bundle. It gets the same checks as our own BTF, and its
 * record names its origin. It never replaces BTF that was made here.
 */
import { basename } from 'node:path'
import { BtfError, isElf, readBtf } from '../../bpf/index.ts'
import {
  type BuildRecord,
  Catalog,
  getBlob,
  type KernelName,
  kernelOfPath,
  namesOf,
  putBlob,
  putRecord,
  type Store,
  StoreError,
  sha256Of,
  unpackArchive,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { readTree, type TreeFile } from '../packages/btf-tree.ts'
import { checkBtf } from './check.ts'

/**
 * The decoders of files in a tree, by the ends of their paths. They return raw BTF, or an ELF file with it: BTFHub's own
 * script keeps the section `.BTF` with `llvm-objcopy --only-section`.
 */
const DECODERS: Readonly<Record<string, (bytes: Buffer) => Buffer | Promise<Buffer>>> = {
  '.btf.tar.xz': (bytes) => unpackArchive(bytes),
  '.btf': (bytes) => bytes,
}

export type Imported =
  | { path: string; state: 'imported' | 'present' | 'made here'; kernel: KernelName }
  | { path: string; state: 'refused'; code: string; message: string }

export interface ImportOptions {
  /** minisign secret key: signs the snapshot of the catalog */
  secretKey?: string
  signal?: AbortSignal
}

/**
 * Imports a directory or a tar with files named `<distro>/<version>/<arch>/<release>.btf` or `.btf.tar.xz`, and
 * yields the result of each. A second import changes nothing. Errors: `invalid_package`; those of the store.
 */
export async function* importTree(
  store: Store,
  root: string,
  { secretKey, signal }: ImportOptions = {},
): AsyncGenerator<Imported> {
  const catalog = await Catalog.open(store)
  const before = new Map<string, Content>()
  for await (const file of readTree(root, (path) => suffixOf(path) !== undefined)) {
    signal?.throwIfAborted()
    yield await importFile({ store, catalog, root, before }, file)
  }
  await Catalog.publish(store, secretKey)
}

/** BTF that others made, with their record of it, or why it cannot be read. */
export interface OfferedBuild {
  record: BuildRecord
  raw: Buffer | StoreError
}

/**
 * Imports builds with records, and yields the result of each. A record keeps the names, the package and the tool that
 * others give; nothing of that was checked here, so it counts as not authenticated. A second import changes nothing.
 * Errors: those of the store.
 */
export async function* importBuilds(
  store: Store,
  root: string,
  builds: AsyncIterable<OfferedBuild>,
  { secretKey, signal }: ImportOptions = {},
): AsyncGenerator<Imported> {
  const catalog = await Catalog.open(store)
  for await (const { record, raw } of builds) {
    signal?.throwIfAborted()
    const { kernel } = record
    const path = [kernel.distro, kernel.version, kernel.arch, kernel.release].join('/')
    yield await refusing(path, async () => {
      if (raw instanceof StoreError) throw raw
      const offered = (btf: ImportedBtf) => offeredRecord(record, basename(root), btf)
      return await importRaw({ store, catalog }, { path, kernel, raw }, offered)
    })
  }
  await Catalog.publish(store, secretKey)
}

const suffixOf = (path: string): string | undefined =>
  Object.keys(DECODERS).find((suffix) => path.endsWith(suffix))

interface Import {
  store: Store
  catalog: Catalog
  root: string
  /** contents of earlier paths, to which hard links may refer */
  before: Map<string, Content>
}

/** A file and the BTF in it. */
interface Content {
  /** digest of the file */
  sha256: string
  /** bytes of the file */
  size: number
  /** digest of the raw BTF, which is in the store */
  btf: string
}

async function importFile(
  { store, catalog, root, before }: Import,
  file: TreeFile,
): Promise<Imported> {
  const { path } = file
  return await refusing(path, async () => {
    const named = kernelOfPath(path, suffixOf(path)!)
    if (!named)
      throw new GeneratorError(
        'kernel_mismatch',
        'invalid path: expected DISTRO/VERSION/ARCH/RELEASE',
      )
    // a bundle may have VERSION_ID 8.6 where the store has 8
    const kernel = { ...named, version: namesOf(named).at(-1)!.version }
    const { raw, sha256, size } = await contentOf(store, before, file)
    const imported = await importRaw({ store, catalog }, { path, kernel, raw }, (btf) =>
      recordOf(kernel, btf, { root, path, sha256, size }),
    )
    if (imported.state !== 'made here') before.set(path, { sha256, size, btf: sha256Of(raw) })
    return imported
  })
}

/** Returns what `work` does, or why the file is refused. Errors: others of `work`. */
async function refusing(path: string, work: () => Promise<Imported>): Promise<Imported> {
  try {
    return await work()
  } catch (error) {
    const expected =
      error instanceof GeneratorError || (error instanceof StoreError && REFUSED.has(error.code))
    if (!expected) throw error
    return { path, state: 'refused', code: error.code, message: error.message }
  }
}

/** Errors of the store that concern one file. */
const REFUSED: ReadonlySet<string> = new Set(['digest_mismatch', 'invalid_key', 'invalid_pack'])

type ImportedBtf = NonNullable<BuildRecord['btf']>

/** Checks and stores BTF, with the record that `record` makes of it. Errors: those of `checkBtf` and of the store. */
async function importRaw(
  { store, catalog }: Pick<Import, 'store' | 'catalog'>,
  { path, kernel, raw }: { path: string; kernel: KernelName; raw: Buffer },
  record: (btf: ImportedBtf) => BuildRecord,
): Promise<Imported> {
  const info = checkBtf(raw)
  const known = catalog.find(kernel)
  const sha256 = sha256Of(raw)
  if (known.some(({ btf }) => btf?.sha256 === sha256)) {
    await putBlob(store, raw) // the blob may be lost
    return { path, state: 'present', kernel }
  }
  if (known.some(({ btf, origin }) => btf && origin !== 'import'))
    return { path, state: 'made here', kernel }
  const btf = { ...(await putBlob(store, raw)), ...info }
  await putRecord(store, record(btf))
  // gc may have removed an equal blob that was stored earlier, before the record named it
  await putBlob(store, raw)
  return { path, state: 'imported', kernel }
}

/** Decodes a file's BTF; for a hard link, returns that of the earlier file. */
async function contentOf(
  store: Store,
  before: ReadonlyMap<string, Content>,
  { path, bytes, link }: TreeFile,
): Promise<{ raw: Buffer; sha256: string; size: number }> {
  const target = link === undefined ? undefined : before.get(link)
  if (target && suffixOf(path) === suffixOf(link!))
    return { ...target, raw: await getBlob(store, target.btf) }
  if (link !== undefined) throw unsupported(`a hard link to ${link}, which was not imported`)
  if (!bytes) throw unsupported('not a regular file, or too large')
  return {
    raw: rawOf(await DECODERS[suffixOf(path)!]!(bytes)),
    sha256: sha256Of(bytes),
    size: bytes.length,
  }
}

/** Raw BTF, taken from the section `.BTF` of an ELF file. Errors: `invalid_btf`. */
function rawOf(bytes: Buffer): Buffer {
  if (!isElf(bytes)) return bytes
  try {
    return Buffer.from(readBtf(bytes).bytes)
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_btf', `the BTF is invalid: ${cause.message}`, { cause })
  }
}

const unsupported = (message: string) => new GeneratorError('unsupported_package', message)

/** The record of a build that is offered, as it is kept here. */
function offeredRecord(record: BuildRecord, pack: string, btf: ImportedBtf): BuildRecord {
  const { kernel, package: from, embedded, tool } = record
  const now = new Date().toISOString()
  return {
    schema: 1,
    kernel,
    package: {
      ...from,
      url: from.url || `import:${pack}`,
      authenticated: 'none',
    },
    ...(embedded !== undefined && { embedded }),
    origin: 'import',
    btf,
    tool: { ...tool, fingerprint: 'import' },
    createdAt: now,
    updatedAt: now,
  }
}

function recordOf(
  kernel: KernelName,
  btf: ImportedBtf,
  from: { root: string; path: string; sha256: string; size: number },
): BuildRecord {
  const now = new Date().toISOString()
  return {
    schema: 1,
    kernel,
    package: {
      name: basename(from.root),
      version: '', // unknown; the record is named after its BTF instead
      url: `import:${from.path}`,
      sha256: from.sha256,
      size: from.size,
      authenticated: 'none',
    },
    origin: 'import',
    btf,
    tool: { name: 'none', version: '', options: [], fingerprint: 'import' },
    createdAt: now,
    updatedAt: now,
  }
}
