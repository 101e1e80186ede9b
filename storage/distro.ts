/*
 * The names of distributions. os-release, archives and people differ: an archive has `rhel/7` for VERSION_ID 7.9, and a
 * shell script that cuts ID out of os-release keeps the quotes. Each rule is a row of the table. A kernel is looked up
 * under the given name first, then under the name that the rules give.
 */
import type { KernelName } from './kernel.ts'

interface Distribution {
  /** other names of the ID */
  readonly aliases?: readonly string[]
  /** the part of VERSION_ID under which its kernels are stored, or the one name of all versions; without it, VERSION_ID */
  readonly version?: RegExp | 'rolling'
  /** the version by its codename, which machines have in place of VERSION_ID, or besides it */
  readonly codenames?: Readonly<Record<string, string>>
  /** the values of VERSION_ID on the machines of a stored version, where they differ from it */
  readonly versionIds?: Readonly<Record<string, readonly string[]>>
}

const MAJOR = /^\d+/

/**
 * The wildcard for distribution, version and architecture. Agents in containers need it: os-release may describe the
 * container instead of the host.
 */
export const ANY = 'any'

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
  arch: { aliases: ['archlinux'], version: 'rolling' },
  centos: { version: MAJOR },
  cloudlinux: { version: MAJOR },
  // testing and sid have the codename of the next release and no VERSION_ID, and cannot be told apart
  debian: {
    version: MAJOR,
    codenames: {
      wheezy: '7',
      jessie: '8',
      stretch: '9',
      buster: '10',
      bullseye: '11',
      bookworm: '12',
      trixie: '13',
      forky: 'sid',
      duke: 'sid',
      testing: 'sid',
      unstable: 'sid',
      sid: 'sid',
    },
  },
  fedora: {},
  kali: { version: 'rolling' },
  ol: { aliases: ['oracle', 'oraclelinux'], version: MAJOR, versionIds: EL },
  openeuler: {},
  'opensuse-leap': { aliases: ['leap', 'opensuse'] },
  'opensuse-tumbleweed': { aliases: ['tumbleweed'], version: 'rolling' },
  raspbian: { version: MAJOR },
  rhel: { aliases: ['redhat'], version: MAJOR, versionIds: EL },
  rocky: {
    aliases: ['rockylinux'],
    version: MAJOR,
    // 8.3 was a release candidate, and says 8
    versionIds: { 8: minors('8', 4, 10), 9: EL[9], 10: EL[10] },
  },
  scientific: { version: MAJOR },
  sles: {
    aliases: ['sles_sap', 'suse'],
    // SLES for SAP 12 says 12.0.1 and 12.1.0.1
    version: /^\d+\.\d+/,
    versionIds: { '12.0': ['12'], '15.0': ['15'] },
  },
  ubuntu: {
    codenames: {
      trusty: '14.04',
      xenial: '16.04',
      bionic: '18.04',
      cosmic: '18.10',
      disco: '19.04',
      eoan: '19.10',
      focal: '20.04',
      groovy: '20.10',
      hirsute: '21.04',
      impish: '21.10',
      jammy: '22.04',
      kinetic: '22.10',
      lunar: '23.04',
      mantic: '23.10',
      noble: '24.04',
      oracular: '24.10',
      plucky: '25.04',
      questing: '25.10',
      resolute: '26.04',
    },
  },
}

const BY_NAME = new Map(
  Object.entries(DISTRIBUTIONS).flatMap(([id, { aliases = [] }]) =>
    [id, ...aliases].map((alias) => [alias, id] as const),
  ),
)

/** The ID that the rules give for a distribution's name, and whether the table has it. */
export function idOf(name: string): { distro: string; known: boolean } {
  const id = unquoted(name).toLowerCase()
  const distro = BY_NAME.get(id)
  return { distro: distro ?? id, known: distro !== undefined }
}

/** The distribution and version that a codename stands for; undefined if the table does not have it. */
export function byCodename(codename: string): Pick<KernelName, 'distro' | 'version'> | undefined {
  const name = unquoted(codename).toLowerCase()
  for (const [distro, { codenames = {} }] of Object.entries(DISTRIBUTIONS)) {
    if (Object.hasOwn(codenames, name)) return { distro, version: codenames[name]! }
  }
  return undefined
}

/** The names under which to look for a kernel: the given one, then the one by the rules if that differs. */
export function namesOf(kernel: KernelName): KernelName[] {
  const { distro } = idOf(kernel.distro)
  const given = unquoted(kernel.version)
  const version = storedVersion(distro, given)
  const canonical = { ...kernel, distro, version: version === '' ? 'rolling' : version }
  const same = canonical.distro === kernel.distro && canonical.version === kernel.version
  return same ? [kernel] : [kernel, canonical]
}

/** The version under which the kernels of a VERSION_ID, or of a codename, are stored. */
export function storedVersion(distro: string, given: string): string {
  const { version, versionIds = {}, codenames = {} } = rowOf(distro)
  if (given === '' || given === ANY) return given
  if (version === 'rolling') return version
  if (Object.hasOwn(codenames, given)) return codenames[given]!
  const row = Object.entries(versionIds).find(([, ids]) => ids.includes(given))
  return row?.[0] ?? version?.exec(given)?.[0] ?? given
}

const rowOf = (distro: string): Distribution =>
  Object.hasOwn(DISTRIBUTIONS, distro) ? DISTRIBUTIONS[distro]! : {}

/**
 * The values that VERSION_ID has on the machines of a stored version, for readers that take it as it is; undefined if
 * they are not known. Most distributions store a kernel under VERSION_ID itself.
 */
export function versionIdsOf({
  distro,
  version,
}: Pick<KernelName, 'distro' | 'version'>): readonly string[] | undefined {
  const { versionIds = {}, version: rule } = rowOf(distro)
  if (Object.hasOwn(versionIds, version)) return versionIds[version]
  // a stored version whose machines are not known, or a VERSION_ID already
  return rule === MAJOR && Object.keys(versionIds).length > 0 && /^\d+$/.test(version)
    ? undefined
    : [version]
}

/** Removes the quotes of os-release, single or double. */
export const unquoted = (text: string): string => /^(["'])(.*)\1$/.exec(text)?.[2] ?? text
