/*
 * BTF that others made, from a btfhub-archive tree or a bundle: checked as our own is, and recorded with where it came
 * from. What was made here is never replaced by it.
 */
import { basename } from 'node:path'
import {
  type BuildRecord,
  Catalog,
  getBlob,
  type KernelName,
  kernelOfPath,
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

/** How a path in a tree ends, and how its bytes become raw BTF. */
const FORMS: Readonly<Record<string, (bytes: Buffer) => Buffer | Promise<Buffer>>> = {
  '.btf.tar.xz': (bytes) => unpackArchive(bytes),
  '.btf': (bytes) => bytes,
}

export type Imported =
  | { path: string; state: 'imported' | 'present' | 'made here'; kernel: KernelName }
  | { path: string; state: 'refused'; code: string; message: string }

export interface ImportOptions {
  /** signs the snapshot */
  secretKey?: string
  signal?: AbortSignal
}

/**
 * Imports a directory or tar with `<distro>/<version>/<arch>/<release>.btf` or `.btf.tar.xz` in it, and tells of each.
 * Again it changes nothing. Errors: those of the store, and `invalid_package` for a tar that does not read.
 */
export async function* importTree(
  store: Store,
  root: string,
  { secretKey, signal }: ImportOptions = {},
): AsyncGenerator<Imported> {
  const catalog = await Catalog.open(store)
  const before = new Map<string, Content>()
  for await (const file of readTree(root, (path) => formOf(path) !== undefined)) {
    signal?.throwIfAborted()
    yield await importFile({ store, catalog, root, before }, file)
  }
  await Catalog.publish(store, secretKey)
}

const formOf = (path: string): string | undefined =>
  Object.keys(FORMS).find((suffix) => path.endsWith(suffix))

interface Import {
  store: Store
  catalog: Catalog
  root: string
  /** what was found at paths that came before, for hard links */
  before: Map<string, Content>
}

/** A file and the BTF in it. */
interface Content {
  /** of the file */
  sha256: string
  size: number
  /** of raw BTF that is in the store */
  btf: string
}

async function importFile(
  { store, catalog, root, before }: Import,
  file: TreeFile,
): Promise<Imported> {
  const { path } = file
  try {
    const kernel = kernelOfPath(path, formOf(path)!)
    if (!kernel) throw refused('kernel_mismatch', 'its path names no kernel')
    const { raw, sha256: digest, size } = await contentOf(store, before, file)
    const info = checkBtf(raw)
    const known = catalog.find(kernel)
    const sha256 = sha256Of(raw)
    const content = { sha256: digest, size, btf: sha256 }
    if (known.some(({ btf }) => btf?.sha256 === sha256)) {
      before.set(path, content)
      return { path, state: 'present', kernel }
    }
    if (known.some(({ btf, origin }) => btf && origin !== 'import'))
      return { path, state: 'made here', kernel }
    const btf = { ...(await putBlob(store, raw)), ...info }
    await putRecord(store, recordOf(kernel, btf, { root, path, ...content }))
    await putBlob(store, raw) // gc may have taken an old one of the same bytes before the record named it
    before.set(path, content)
    return { path, state: 'imported', kernel }
  } catch (error) {
    const expected =
      error instanceof GeneratorError ||
      (error instanceof StoreError && ['digest_mismatch', 'invalid_key'].includes(error.code))
    if (!expected) throw error
    return { path, state: 'refused', code: error.code, message: error.message }
  }
}

/** A file's BTF; of a hard link that of the file before it. */
async function contentOf(
  store: Store,
  before: ReadonlyMap<string, Content>,
  { path, bytes, link }: TreeFile,
): Promise<{ raw: Buffer; sha256: string; size: number }> {
  const first = link === undefined ? undefined : before.get(link)
  if (first && formOf(path) === formOf(link!))
    return { ...first, raw: await getBlob(store, first.btf) }
  if (link !== undefined)
    throw refused('unsupported_package', `it is a hard link to ${link}, which was not imported`)
  if (!bytes) throw refused('unsupported_package', 'it is no regular file, or too large')
  return { raw: await FORMS[formOf(path)!]!(bytes), sha256: sha256Of(bytes), size: bytes.length }
}

const refused = (code: 'kernel_mismatch' | 'unsupported_package', why: string) =>
  new GeneratorError(code, why)

function recordOf(
  kernel: KernelName,
  btf: NonNullable<BuildRecord['btf']>,
  from: { root: string; path: string; sha256: string; size: number },
): BuildRecord {
  const now = new Date().toISOString()
  return {
    schema: 1,
    kernel,
    package: {
      name: basename(from.root),
      version: '', // nobody knows; the build is named after its BTF
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
