/*
 * BTF that others made, from a btfhub-archive tree or a bundle: checked as our own is, and recorded with where it came
 * from. What was made here is never replaced by it.
 */
import { basename } from 'node:path'
import {
  type BuildRecord,
  Catalog,
  type KernelName,
  kernelOfPath,
  putBlob,
  putRecord,
  type Store,
  StoreError,
  sha256Of,
  unpackArchive,
} from '../storage/index.ts'
import { checkBtf } from './check.ts'
import { GeneratorError } from './error.ts'
import { readTree, type TreeFile } from './tree.ts'

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
 * Again it changes nothing. Errors: those of the store, and `corrupt_package` for a tar that does not read.
 */
export async function* importTree(
  store: Store,
  root: string,
  { secretKey, signal }: ImportOptions = {},
): AsyncGenerator<Imported> {
  const catalog = await Catalog.open(store)
  for await (const file of readTree(root, (path) => formOf(path) !== undefined)) {
    signal?.throwIfAborted()
    yield await importFile(store, catalog, root, file)
  }
  await Catalog.publish(store, secretKey)
}

const formOf = (path: string): string | undefined =>
  Object.keys(FORMS).find((suffix) => path.endsWith(suffix))

async function importFile(
  store: Store,
  catalog: Catalog,
  root: string,
  { path, bytes }: TreeFile,
): Promise<Imported> {
  try {
    const suffix = formOf(path)!
    const kernel = kernelOfPath(path, suffix)
    if (!kernel) throw refused('wrong_kernel', 'its path names no kernel')
    if (!bytes) throw refused('unsupported_package', 'it is no regular file, or too large')
    const raw = await FORMS[suffix]!(bytes)
    const info = checkBtf(raw)
    const known = catalog.find(kernel)
    const sha256 = sha256Of(raw)
    if (known.some(({ btf }) => btf?.sha256 === sha256)) return { path, state: 'present', kernel }
    if (known.some(({ btf, origin }) => btf && origin !== 'import'))
      return { path, state: 'made here', kernel }
    const btf = { ...(await putBlob(store, raw)), ...info }
    await putRecord(store, recordOf(kernel, btf, { root, path, bytes }))
    await putBlob(store, raw) // gc may have taken an old one of the same bytes before the record named it
    return { path, state: 'imported', kernel }
  } catch (error) {
    const expected =
      error instanceof GeneratorError ||
      (error instanceof StoreError && ['digest_mismatch', 'invalid_key'].includes(error.code))
    if (!expected) throw error
    return { path, state: 'refused', code: error.code, message: error.message }
  }
}

const refused = (code: 'wrong_kernel' | 'unsupported_package', why: string) =>
  new GeneratorError(code, why)

function recordOf(
  kernel: KernelName,
  btf: NonNullable<BuildRecord['btf']>,
  from: { root: string; path: string; bytes: Buffer },
): BuildRecord {
  const now = new Date().toISOString()
  return {
    schema: 1,
    kernel,
    package: {
      name: basename(from.root),
      version: '', // nobody knows; the build is named after its BTF
      url: `import:${from.path}`,
      sha256: sha256Of(from.bytes),
      size: from.bytes.length,
      authenticated: 'none',
    },
    origin: 'import',
    btf,
    tool: { name: 'none', version: '', options: [], artefact: 'import' },
    createdAt: now,
    updatedAt: now,
  }
}
