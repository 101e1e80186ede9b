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
  /** the values of VERSION_ID on the machines of a stored version, where they differ from it */
  readonly versionIds?: Readonly<Record<string, readonly string[]>>
}

const MAJOR = /^\d+/

/** The values of VERSION_ID from `MAJOR.first` to `MAJOR.last`. */
const minors = (major: string, first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, i) => `${major}.${first + i}`)

/**
 * Red Hat Enterprise Linux: 6 and 8 ended at .10, 7 at .9; 9 and 10 are planned to .10, one release in six months for
 * five years (access.redhat.com/support/policy/updates/errata). Rebuilds have the same numbers, from their first release
 * on. A RHEL 6 machine has no os-release; one of Oracle Linux 6 has.
 */
const EL = {
  6: minors('6', 0, 10),
  7: minors('7', 0, 9),
  8: minors('8', 0, 10),
  9: minors('9', 0, 10),
  10: minors('10', 0, 10),
}

/** By os-release ID. */
const DISTRIBUTIONS: Readonly<Record<string, Distribution>> = {
  alinux: {
    aliases: ['alibaba', 'aliyun'],
    version: MAJOR,
    // os-release of images: 2 says 2.1903, as Salt's tests have it (tests/pytests/unit/grains/test_core.py); 3 and 4 name
    // their minor release in ALINUX_MINOR_ID only
    versionIds: { 2: ['2.1903'], 3: ['3'], 4: ['4'] },
  },
  almalinux: {
    aliases: ['alma'],
    version: MAJOR,
    versionIds: { 8: minors('8', 3, 10), 9: EL[9], 10: EL[10] },
  },
  amzn: {
    aliases: ['amazon', 'amazonlinux'],
    version: MAJOR,
    // 1 has one repository for its releases since 2017.03, which is stored as 2018; 2 and 2023 have their name alone
    // (docs.aws.amazon.com/linux/al2023/ug/ident-os-release.html)
    versionIds: { 2: ['2'], 2018: ['2017.03', '2017.09', '2018.03'], 2023: ['2023'] },
  },
  anolis: {
    aliases: ['anolisos', 'openanolis'],
    version: MAJOR,
    // mirrors.openanolis.cn/anolis has the releases 7.7, 7.9, 8.2 to 8.10, 23 to 23.5 (August 2026); 23 gets more until
    // 2030 (gitee.com/anolis/rnotes, life-cycle.md)
    versionIds: { 7: ['7.7', '7.9'], 8: minors('8', 2, 10), 23: ['23', ...minors('23', 1, 9)] },
  },
  centos: { version: MAJOR },
  debian: { version: MAJOR },
  fedora: {},
  ol: { aliases: ['oracle', 'oraclelinux'], version: MAJOR, versionIds: EL },
  openeuler: {},
  'opensuse-leap': { aliases: ['leap', 'opensuse'] },
  rhel: { aliases: ['redhat'], version: MAJOR, versionIds: EL },
  rocky: {
    aliases: ['rockylinux'],
    version: MAJOR,
    // 8.3 was a release candidate, and says 8
    versionIds: { 8: minors('8', 4, 10), 9: EL[9], 10: EL[10] },
  },
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
  const version = storedVersion(distro, given)
  const canonical = { ...kernel, distro, version: version === '' ? 'rolling' : version }
  const same = canonical.distro === kernel.distro && canonical.version === kernel.version
  return same ? [kernel] : [kernel, canonical]
}

/** The version under which the kernels of a VERSION_ID are stored. */
function storedVersion(distro: string, given: string): string {
  const { version, versionIds = {} } = DISTRIBUTIONS[distro] ?? {}
  const row = Object.entries(versionIds).find(([, ids]) => ids.includes(given))
  return row?.[0] ?? version?.exec(given)?.[0] ?? given
}

/**
 * The values that VERSION_ID has on the machines of a stored version, for readers that take it as it is; undefined if
 * they are not known. Most distributions store a kernel under VERSION_ID itself.
 */
export function versionIdsOf({
  distro,
  version,
}: Pick<KernelName, 'distro' | 'version'>): readonly string[] | undefined {
  const versionIds = DISTRIBUTIONS[distro]?.versionIds
  if (!versionIds || !/^\d+$/.test(version)) return [version]
  return versionIds[version]
}

/** Removes the quotes of os-release, single or double. */
export const unquoted = (text: string): string => /^(["'])(.*)\1$/.exec(text)?.[2] ?? text
