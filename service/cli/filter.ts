import type { KernelFilter } from '../../storage/index.ts'

/** The options that every command takes. */
export interface CommonOptions {
  store: string
  json?: boolean
}

/** The filters of a command line, without what was not given. */
export function filterOf({ distro, version, arch, release }: KernelFilter): KernelFilter {
  return {
    ...(distro !== undefined && { distro }),
    ...(version !== undefined && { version }),
    ...(arch !== undefined && { arch }),
    ...(release !== undefined && { release }),
  }
}
