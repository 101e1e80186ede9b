/*
 * Distributions under all the names that os-release and people have for them. An archive has `rhel/7` where os-release
 * says 7.9; a shell that cuts ID out of os-release keeps its quotes. Each rule is a row; a name is looked for as it is
 * first, then as the rules have it.
 */
import type { KernelName } from './kernel.ts'

interface Distribution {
  /** other IDs */
  readonly aliases?: readonly string[]
  /** the part of VERSION_ID under which its kernels are kept, where that is not all of it */
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

/** A kernel's names, as given first and then as the rules have them: two, or one where they are the same. */
export function namesOf(kernel: KernelName): KernelName[] {
  const id = unquoted(kernel.distro).toLowerCase()
  const distro = BY_NAME.get(id) ?? id
  const given = unquoted(kernel.version)
  const [version = given] = DISTRIBUTIONS[distro]?.version?.exec(given) ?? []
  const ruled = { ...kernel, distro, version: version === '' ? 'rolling' : version }
  const same = ruled.distro === kernel.distro && ruled.version === kernel.version
  return same ? [kernel] : [kernel, ruled]
}

/** Without the quotes of os-release, single or double. */
export const unquoted = (text: string): string => /^(["'])(.*)\1$/.exec(text)?.[2] ?? text
