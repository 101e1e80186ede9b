/* The package with the boot image of a kernel: found in the sources by the kernel's name and the version of its build. */
import { join } from 'node:path'
import type { BuildRecord } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { findPackages, type PackageSearchOptions } from '../indexes/available.ts'
import { jobOf } from '../jobs/job.ts'
import { fetchVmlinux } from '../packages/fetch.ts'
import { ModuleSet } from '../packages/module.ts'
import { ALL_SOURCES } from '../sources/sources.ts'

export interface KernelImage {
  /** path of the boot image */
  vmlinuz: string
  /** paths of the wanted modules, in the order in which they were wanted */
  modules: string[]
  package: { name: string; version: string; size: number | undefined }
}

export interface ImageOptions
  extends Pick<PackageSearchOptions, 'sources' | 'source' | 'mirror' | 'store' | 'signal'> {
  /** names of modules to unpack too */
  modules?: readonly string[]
}

/**
 * Downloads the package with the image of a record's kernel and unpacks the image into `dir`. The package has the version
 * of the record's; for imported BTF, whose version is not known, the newest is taken. Errors: `no_image`, with the
 * reason; those of `findPackages` and `fetchVmlinux`.
 */
export async function fetchImage(
  { kernel, package: { version }, origin }: Pick<BuildRecord, 'kernel' | 'package' | 'origin'>,
  dir: string,
  { modules: names = [], signal, ...options }: ImageOptions,
): Promise<KernelImage> {
  const { distro, arch, release } = kernel
  const filter = { distro, version: kernel.version, arch, release }
  const { packages, failures } = await findPackages({
    ...options,
    ...(signal && { signal }),
    filter,
    roles: ['image'],
    dryRun: true,
  })
  const found =
    packages.find((image) => image.version === version) ??
    (origin === 'import' ? packages[0] : undefined)
  if (!found) {
    const versions = packages.map((image) => image.version)
    const [failure] = failures
    const why =
      versions.length > 0
        ? `the sources have it in the versions ${versions.join(', ')}`
        : failure
          ? `${failure.code}: ${failure.message}`
          : 'no source has it; --source names opt-in sources, such as debian-snapshot'
    const name = [distro, kernel.version, arch, release].join('/')
    const message = `no package with the image of ${name} in version ${version}: ${why}`
    throw new GeneratorError('no_image', message)
  }
  const vmlinuz = join(dir, 'vmlinuz')
  const set = new ModuleSet(names, release)
  const { access } = (options.sources ?? ALL_SOURCES).find(({ id }) => id === found.source) ?? {}
  const fetched = await fetchVmlinux(
    jobOf(found),
    { vmlinux: vmlinuz, ...(names.length > 0 && { modules: { set, directory: dir } }) },
    { earlyStop: false, onProgress() {}, signal, ...(access && { access }) },
  )
  await fetched.vmlinux
  const files = await fetched.modules
  await fetched.done
  if (set.missing.length > 0) {
    const message = `${found.name} has no module ${set.missing.join(', ')}`
    throw new GeneratorError('no_module', message)
  }
  return {
    vmlinuz,
    modules: names.map((name) => files.find((file) => file.name === name)!.path),
    package: { name: found.name, version: found.version, size: found.size },
  }
}
