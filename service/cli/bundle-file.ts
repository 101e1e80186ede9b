/* The files that `export` writes, whether the bundle is made here or by a service. */
import { randomUUID } from 'node:crypto'
import { rename, rm } from 'node:fs/promises'
import type { KernelName } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import type { BundleResult } from '../bundle/bundle.ts'
import { besideOf } from '../bundle/manifest.ts'
import { nameOf } from '../kernel/name.ts'
import { counted, printable } from './output.ts'

/** The outcome of a bundle or a pack. */
export type BundleOutcome = Omit<BundleResult, 'manifest' | 'signature'>

/** A bundle that was written to a path. */
export interface WrittenBundle {
  result: BundleResult
  path: string
}

/** Prints what the objects ask for and minimized BTF cannot give. */
export function warn(warnings: readonly string[]): void {
  for (const warning of warnings) console.error(`btfmill: warning: ${printable(warning)}`)
}

/** The most kernels that a warning names. */
const MAX_NAMED = 3

/** A warning that names kernels of a bundle whose BTF is partial; none if there are none. */
export function partialWarning(kernels: readonly KernelName[]): string[] {
  if (kernels.length === 0) return []
  const names = kernels.slice(0, MAX_NAMED).map(nameOf).join(', ')
  const more = kernels.length > MAX_NAMED ? ', …' : ''
  return [
    `the BTF of ${counted(kernels.length, 'kernel')} is partial, made from headers: ${names}${more}`,
  ]
}

/** Calls `work` with the path of a temporary file, which then takes the place of the file at `path`. Errors: those of `work`. */
export async function replace<T>(
  path: string,
  work: (temporary: string) => Promise<T>,
): Promise<T> {
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    const result = await work(temporary)
    await rename(temporary, path)
    return result
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}) // the first error is the one to report
    throw error
  }
}

/** Writes the manifest and its signature beside an archive. Errors: the system's. */
export async function writeBeside(
  path: string,
  { manifest, signature }: Pick<BundleResult, 'manifest' | 'signature'>,
): Promise<void> {
  const beside = besideOf(path)
  await writeWhole(beside.manifest, manifest)
  if (signature) await writeWhole(beside.signature, signature)
}
