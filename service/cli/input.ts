/* What a command is given: files, one kernel of the store by its name, or those that filters choose. */
import { readFile } from 'node:fs/promises'
import { type Btf, BtfError, mergeBtf, openObject, parseBtf, readBtf } from '../../bpf/index.ts'
import {
  Catalog,
  getBlob,
  type KernelFilter,
  openStore,
  readCompressedBlob,
  StoreError,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { lookUp, moduleDigests } from '../kernel/lookup.ts'
import { parseName } from '../kernel/name.ts'
import { selectTargets, type TargetKernel } from '../kernel/targets.ts'
import type { BtfInput } from '../threads/worker.ts'

/** Reads a BPF object. Errors: those of `openObject`, with the file's name. */
export async function readObject(path: string): Promise<Uint8Array> {
  const bytes = await readFile(path)
  parsed(path, bytes, openObject)
  return bytes
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
export interface ChosenKernel extends Omit<TargetKernel, 'btf'> {
  readonly read: () => Promise<BtfInput>
}

/**
 * The kernel of `--btf`, else those of the store that match the filter, in order of their names; of several builds with
 * one BTF the first. Records that cannot be read go to `onInvalid`. Errors: those of the store.
 */
export async function chosenKernels(
  { btf, store: url }: { btf?: string; store: string },
  filter: KernelFilter,
  onInvalid: (error: StoreError) => void,
): Promise<ChosenKernel[]> {
  if (btf !== undefined)
    return [{ name: btf, read: async () => (await openKernel(btf, url)).bytes }]
  const store = await openStore(url)
  const catalog = await Catalog.open(store, onInvalid)
  return [...selectTargets(catalog, filter)].map(({ btf: { sha256, size }, ...chosen }) => {
    return {
      ...chosen,
      read: async () => ({ frame: await readCompressedBlob(store, sha256), sha256, size }),
    }
  })
}

/** What is wrong with one kernel. */
export interface KernelError {
  code: string
  message: string
}

/** What is wrong with one kernel, so that a command can go on to the next; any other error is thrown. */
export function kernelErrorOf(error: unknown): KernelError {
  const refused =
    error instanceof BtfError || error instanceof StoreError || error instanceof ServiceError
  if (!refused) throw error
  const { code, message } = error
  return { code, message }
}
