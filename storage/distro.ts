/*
 * The names of distributions. os-release, archives and people differ: an archive has `rhel/7` for VERSION_ID 7.9, and a
 * shell script that cuts ID out of os-release keeps the quotes. Each rule is a row of the table. A kernel is looked up
 * under the given name first, then under the name that the rules give.
 */
import type { KernelName } from './kernel.ts'

interface Distribution {
  /** other names of the ID */
  readonly aliases?: readonly string[]
  /** the part of VERSION_ID under which its kernels are stored; without it, all of VERSION_ID */
  readonly version?: RegExp
}

const MAJOR = /^\d+/

/** By os-release ID. */
const DISTRIBUTIONS: Readonly<Record<string, Distribution>> = {
  alinux: { aliases: ['alibaba', 'aliyun'], version: MAJOR },
  almalinux: { aliases: ['alma'], version: MAJOR },
  amzn: { aliases: ['amazon', 'amazonlinux'], version: MAJOR },
  anolis: { aliases: ['anolisos', 'openanolis'], version: MAJOR },
  centos: { version: MAJOR },
  debian: { version: MAJOR },
  fedora: {},
  ol: { aliases: ['oracle', 'oraclelinux'], version: MAJOR },
  openeuler: {},
  'opensuse-leap': { aliases: ['leap', 'opensuse'] },
  rhel: { aliases: ['redhat'], version: MAJOR },
  rocky: { aliases: ['rockylinux'], version: MAJOR },
  sles: { aliases: ['sles_sap', 'suse'] },
  ubuntu: {},
}

const BY_NAME = new Map(
  Object.entries(DISTRIBUTIONS).flatMap(([id, { aliases = [] }]) =>
    [id, ...aliases].map((alias) => [alias, id] as const),
  ),
)

/** The names under which to look for a kernel: the given one, then the one by the rules if that differs. */
export function namesOf(kernel: KernelName): KernelName[] {
  const id = unquoted(kernel.distro).toLowerCase()
  const distro = BY_NAME.get(id) ?? id
  const given = unquoted(kernel.version)
  const [version = given] = DISTRIBUTIONS[distro]?.version?.exec(given) ?? []
  const canonical = { ...kernel, distro, version: version === '' ? 'rolling' : version }
  const same = canonical.distro === kernel.distro && canonical.version === kernel.version
  return same ? [kernel] : [kernel, canonical]
}

/** Removes the quotes of os-release, single or double. */
export const unquoted = (text: string): string => /^(["'])(.*)\1$/.exec(text)?.[2] ?? text
