/* What a command is given: files, one kernel of the store by its name, or those that filters choose. */
import { readFile } from 'node:fs/promises'
import {
  type BpfObject,
  type Btf,
  BtfError,
  mergeBtf,
  openObject,
  parseBtf,
  readBtf,
} from '../../bpf/index.ts'
import {
  Catalog,
  getBlob,
  getBlobs,
  type KernelFilter,
  openStore,
  StoreError,
} from '../../storage/index.ts'
import { allChosen, type Chosen } from '../chosen.ts'
import { ServiceError } from '../error.ts'
import { lookUp, moduleDigests } from '../lookup.ts'
import { parseName } from '../name.ts'

/** Opens a BPF object. Errors: those of `openObject`, with the file's name. */
export async function openObjectFile(path: string): Promise<BpfObject> {
  return parsed(path, await readFile(path), openObject)
}

/**
 * BTF from a file, raw or ELF, else of the kernel DISTRO/VERSION/ARCH/RELEASE in a store, where `withModules` says so
 * with the types of its modules. Errors: those of `readBtf`, with the file's name; `unknown_kernel` where it is neither;
 * those of `lookUp`.
 */
export async function openKernel(
  what: string,
  storeUrl: string,
  withModules = false,
): Promise<Btf> {
  const bytes = await readFile(what).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
  if (bytes) return parsed(what, bytes, readBtf)
  const kernel = parseName(what)
  if (!kernel) {
    const message = `${what} is neither a file nor DISTRO/VERSION/ARCH/RELEASE`
    throw new ServiceError('unknown_kernel', message)
  }
  const store = await openStore(storeUrl)
  const record = await lookUp(new Catalog(store), kernel, { withModules })
  const base = parseBtf(await getBlob(store, record.btf.sha256))
  if (!withModules) return base
  const modules = await Promise.all(
    moduleDigests(record).map(async (sha256) => parseBtf(await getBlob(store, sha256), { base })),
  )
  return parseBtf(mergeBtf(base, modules))
}

function parsed<T>(path: string, bytes: Buffer, parse: (bytes: Buffer) => T): T {
  try {
    return parse(bytes)
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
    throw new BtfError(error.code, `${path}: ${error.message}`)
  }
}

/** BTF that a command works on, read when it is its turn; its name is as the command was given it, or the kernel's. */
export interface ChosenKernel extends Omit<Chosen, 'btf'> {
  readonly btf: () => Promise<Btf>
}

/**
 * The kernel of `--btf`, else those of the store that match the filter, in order of their names; of several builds with
 * one BTF the first. Records that cannot be read go to `onInvalid`. Errors: those of the store.
 */
export async function* chosenKernels(
  { btf, store: url }: { btf?: string; store: string },
  filter: KernelFilter,
  onInvalid: (error: StoreError) => void,
): AsyncGenerator<ChosenKernel> {
  if (btf !== undefined) {
    yield { name: btf, btf: () => openKernel(btf, url) }
    return
  }
  const store = await openStore(url)
  const catalog = await Catalog.open(store, onInvalid)
  const chosen = [...allChosen(catalog, filter)]
  const blobs = getBlobs(
    store,
    chosen.map(({ btf: { sha256 } }) => sha256),
  )
  for (const { btf: _, ...one } of chosen) {
    const read: Promise<Buffer> = blobs.next().value
    yield { ...one, btf: async () => parseBtf(await read) }
  }
}

/** What is wrong with one kernel, with a code, so that a command can go on to the next; any other error is thrown. */
export function refusalOf(error: unknown): { code: string; message: string } {
  const refused =
    error instanceof BtfError || error instanceof StoreError || error instanceof ServiceError
  if (!refused) throw error
  const { code, message } = error
  return { code, message }
}
