/*
 * Derivatives: distributions whose machines run the kernels of another distribution, their parent. The table has those
 * that are known. Of others, os-release tells: ID_LIKE names the parents, closest first (os-release(5)), and
 * UBUNTU_CODENAME the parent's version. Such claims of a client serve for look-ups only. A kernel is counted as missing
 * under a parent's name only if the table says that all kernels of the derivative are the parent's.
 */
import { byCodename, idOf, namesOf, storedVersion } from './distro.ts'
import type { KernelName } from './kernel.ts'

/** What os-release tells of a distribution's parents. */
export interface KernelHints {
  /** ID_LIKE: words with spaces between them */
  like?: string
  /** UBUNTU_CODENAME, DEBIAN_CODENAME or VERSION_CODENAME */
  codename?: string
}

/** A distribution, and its version where it is known. */
export type Parent = Pick<KernelName, 'distro'> & Partial<Pick<KernelName, 'version'>>

interface Derivative {
  /** os-release IDs, in the order in which to look */
  readonly parents: readonly string[]
  /** `DISTRO/VERSION` of the parent by the beginning of VERSION_ID, or the parent's versions; without it, any version */
  readonly versions?: 'same' | Readonly<Record<string, string>>
  /** it builds other kernels, too */
  readonly ownKernels?: true
}

/** SUSE Linux Enterprise Micro by the service pack that it is built from (its release notes, "Code base"). */
const SLE_MICRO: Derivative = {
  parents: ['sles'],
  versions: {
    '5.0': 'sles/15.2',
    '5.1': 'sles/15.3',
    '5.2': 'sles/15.3',
    '5.3': 'sles/15.4',
    '5.4': 'sles/15.4',
    '5.5': 'sles/15.5',
  },
  ownKernels: true,
}
const SLE: Derivative = { parents: ['sles'], versions: 'same' }

/** By os-release ID. */
const DERIVATIVES: Readonly<Record<string, Derivative>> = {
  // 8 and 9 run AlmaLinux's kernels, or kernels with `lve` in their release
  cloudlinux: { parents: ['almalinux', 'rhel', 'centos'], versions: 'same', ownKernels: true },
  devuan: {
    parents: ['debian'],
    versions: {
      1: 'debian/8',
      2: 'debian/9',
      3: 'debian/10',
      4: 'debian/11',
      5: 'debian/12',
      6: 'debian/13',
    },
  },
  elementary: {
    parents: ['ubuntu'],
    versions: {
      5: 'ubuntu/18.04',
      6: 'ubuntu/20.04',
      7: 'ubuntu/22.04',
      8: 'ubuntu/24.04',
      '0.4': 'ubuntu/16.04',
    },
  },
  kali: { parents: ['debian'], ownKernels: true },
  // the numbers up to 7 are those of the edition that is built from Debian
  linuxmint: {
    parents: ['ubuntu', 'debian'],
    versions: {
      2: 'debian/8',
      3: 'debian/9',
      4: 'debian/10',
      5: 'debian/11',
      6: 'debian/12',
      7: 'debian/13',
      17: 'ubuntu/14.04',
      18: 'ubuntu/16.04',
      19: 'ubuntu/18.04',
      20: 'ubuntu/20.04',
      21: 'ubuntu/22.04',
      22: 'ubuntu/24.04',
    },
  },
  neon: { parents: ['ubuntu'], versions: 'same' },
  pop: { parents: ['ubuntu'], versions: 'same', ownKernels: true },
  raspbian: { parents: ['debian'], versions: 'same', ownKernels: true },
  // VERSION_ID is that of OpenShift; the kernel's release tells the version of RHEL
  rhcos: { parents: ['rhel'] },
  scientific: { parents: ['rhel', 'centos'], versions: 'same', ownKernels: true },
  'sl-micro': SLE_MICRO,
  'sle-hpc': SLE,
  'sle-micro': SLE_MICRO,
  sle_hpc: SLE,
  sled: SLE,
  'suse-microos': SLE_MICRO,
  'ubuntu-core': {
    parents: ['ubuntu'],
    versions: {
      16: 'ubuntu/16.04',
      18: 'ubuntu/18.04',
      20: 'ubuntu/20.04',
      22: 'ubuntu/22.04',
      24: 'ubuntu/24.04',
      26: 'ubuntu/26.04',
    },
  },
  zorin: {
    parents: ['ubuntu'],
    versions: {
      12: 'ubuntu/16.04',
      15: 'ubuntu/18.04',
      16: 'ubuntu/20.04',
      17: 'ubuntu/22.04',
      18: 'ubuntu/24.04',
    },
  },
}

/** Distributions that build the same sources under the same `uname -r`. */
const REBUILDS: ReadonlySet<string> = new Set([
  'almalinux',
  'centos',
  'cloudlinux',
  'ol',
  'rhel',
  'rocky',
  'scientific',
])

/** The most parents that are looked up for one request. */
const MAX_PARENTS = 6

/** The parents whose kernels a machine may run, in the order in which to look; without the machine's own distribution. */
export function parentsOf(kernel: KernelName, { like = '', codename = '' }: KernelHints): Parent[] {
  const { distro, version, release } = namesOf(kernel).at(-1)!
  const { known } = idOf(distro)
  const row = derivativeOf(distro)
  const found: Parent[] = []
  if (typeof row?.versions === 'object') found.push(...parentIn(row.versions, version))
  const isKnown = found.length > 0
  // a distribution that is known and no derivative builds all of its kernels, whatever ID_LIKE says
  const ids = isKnown ? [] : (row?.parents ?? (known ? [] : likesOf(like)))
  const named = known && !row ? undefined : byCodename(codename)
  if (named && (!row || row.parents.includes(named.distro))) found.push(named)
  for (const id of ids) {
    const own = row?.versions === 'same' ? storedVersion(id, version) : undefined
    const parent = versionInRelease(id, release) ?? own
    const better = parent === undefined && found.some(({ distro }) => distro === id)
    if (!better) found.push({ distro: id, ...(parent !== undefined && { version: parent }) })
  }
  // testing and sid are not told apart, and may still run a kernel of the version before
  if (distro === 'debian' && byCodename(kernel.version)) found.push({ distro })
  const isFirst = (parent: Parent, i: number) =>
    found.findIndex((other) => isSame(parent, other)) === i
  return found
    .filter((parent) => !isSame(parent, { distro, version }))
    .filter(isFirst)
    .slice(0, MAX_PARENTS)
}

/**
 * The one name under which a kernel is counted as missing, and generated: the parent's if all kernels of the
 * distribution are the parent's, else its own.
 */
export function countedNameOf(kernel: KernelName, hints: KernelHints): KernelName {
  const own = namesOf(kernel).at(-1)!
  const row = derivativeOf(own.distro)
  if (!row || row.ownKernels) return own
  const parent = parentsOf(kernel, hints).find(({ version }) => version !== undefined)
  return { ...own, ...parent }
}

/**
 * Tells whether two distributions may have different builds of a kernel under one `uname -r`: the same distribution in another
 * version, or two rebuilds of the same sources.
 */
export const mayRebuild = (a: string, b: string): boolean =>
  a === b || (REBUILDS.has(a) && REBUILDS.has(b))

const derivativeOf = (distro: string): Derivative | undefined =>
  Object.hasOwn(DERIVATIVES, distro) ? DERIVATIVES[distro] : undefined

/** The distributions of ID_LIKE that are known, without repetitions. */
function likesOf(like: string): string[] {
  const ids = like.split(/\s+/, 2 * MAX_PARENTS).map(idOf)
  return [...new Set(ids.flatMap(({ distro, known }) => (known ? [distro] : [])))]
}

/** The parent of a version, by its beginning: 20 for 20.3, 0.4 for 0.4.1. */
function parentIn(versions: Readonly<Record<string, string>>, version: string): Parent[] {
  const [major = '', minor = ''] = version.split('.')
  const key = [`${major}.${minor}`, major].find((name) => Object.hasOwn(versions, name))
  const [distro, parent] = key === undefined ? [] : versions[key]!.split('/')
  return distro && parent ? [{ distro, version: parent }] : []
}

/** The version of a distribution that `uname -r` tells: 8 in `4.18.0-305.el8_4.x86_64`, 31 in `5.4.8-200.fc31.x86_64`. */
function versionInRelease(distro: string, release: string): string | undefined {
  if (REBUILDS.has(distro)) return /\.el(\d+)/.exec(release)?.[1]
  if (distro === 'fedora') return /\.fc(\d+)/.exec(release)?.[1]
  return undefined
}

/** What a release tells of its distribution: the pattern of the version, and its names where they differ. */
interface ReleaseRule {
  readonly pattern: RegExp
  readonly distro: string
  readonly versions?: Readonly<Record<string, string>>
}

/** The first rule that matches counts. */
const RELEASE_RULES: readonly ReleaseRule[] = [
  { pattern: /\.an(\d+)\b/, distro: 'anolis' },
  { pattern: /\.al(\d+)\b/, distro: 'alinux', versions: { 7: '2', 8: '3' } },
  { pattern: /\.amzn(\d+)\b/, distro: 'amzn', versions: { 1: '2018' } },
  { pattern: /\.fc(\d+)\b/, distro: 'fedora' },
  { pattern: /\.el(\d+)(?:_\d+)?uek\b/, distro: 'ol' },
  { pattern: /\.el(\d+)(?:_\d+)?\b/, distro: 'centos' },
]

/**
 * The distribution of a kernel of which only the release is known; of rebuilds, CentOS. Where the release does not tell, it has
 * the ID that os-release has by default (os-release(5)), and no version.
 */
export function distributionIn(release: string): Pick<KernelName, 'distro' | 'version'> {
  for (const { pattern, distro, versions = {} } of RELEASE_RULES) {
    const [, version] = pattern.exec(release) ?? []
    if (version !== undefined) return { distro, version: versions[version] ?? version }
  }
  return { distro: 'linux', version: 'rolling' }
}

const isSame = (a: Parent, b: Parent): boolean => a.distro === b.distro && a.version === b.version
