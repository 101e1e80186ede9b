/*
 * A repository for each row of the source table, made by the distribution's own tools: packages with its names, and
 * vmlinux at its path, beside packages that look like kernels but are not.
 */
import { copyFileSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Test } from 'tap'
import { baseOf, type IndexTarget, indexTargetsOf } from '../../generator/indexes/discover.ts'
import { nameOfRepository, parseSource, type Source } from '../../generator/sources/source.ts'
import { SOURCES } from '../../generator/sources/sources.ts'
import type { BuildRecord } from '../../storage/index.ts'
import { makeSuite } from './apt-archive.ts'
import { startLaunchpad, startSnapshot } from './launchpad-server.ts'
import { startNginx } from './nginx.ts'
import { makePackage } from './package.ts'
import { makeRpm } from './rpm.ts'
import { makeRpmRepository, signRepomd } from './rpm-repository.ts'
import { makeRunDirectory } from './run-directory.ts'
import { makeSigner, type Signer } from './signer.ts'

/** The architectures of packages, by `uname -m` name. */
type Packaged = 'x86_64' | 'aarch64' | 'armv5tel' | 'ppc64le'

/** Makes the images of kernels. */
export interface Images {
  /** Returns the `uname -m` name of the images for an architecture of packages. */
  arch(packaged: Packaged): string
  /** Writes a vmlinux of a release to `path`. */
  make(path: string, release: string, packaged: Packaged): void
}

/** A kernel that a run must find. */
interface Kernel {
  name: string
  version: string
  /** `uname -r` */
  release: string
}

interface Row {
  source: string
  version: string
  arch?: Packaged
  /** the repository that has the kernels (default: the first) */
  repository?: string
  kernels: readonly Kernel[]
  /** kernels of other releases in the same repository */
  elsewhere?: readonly Kernel[]
  /** names of packages that are not kernels with debug info */
  others: readonly string[]
  /** the signed part of the repository */
  signed: 'index' | 'header' | 'nothing'
  authenticated: BuildRecord['package']['authenticated']
}

const RPM_OTHERS = [
  'kernel-debug-debuginfo',
  'kernel-debuginfo-common-x86_64',
  'kernel-tools-debuginfo',
]
const SUSE_OTHERS = [
  'kernel-preempt-debuginfo',
  'kernel-default-debugsource',
  'kernel-default-base-debuginfo',
]
const LEAP_OTHERS = [
  ...SUSE_OTHERS,
  'kernel-debug-debuginfo',
  'kernel-vanilla-debuginfo',
  'kernel-rt-debuginfo',
]

/** kernel-debuginfo, or another package that is named alike. */
const rpm = (version: string, name = 'kernel-debuginfo', arch = 'x86_64'): Kernel => ({
  name,
  version,
  release: `${version}.${arch}`,
})

/** A flavour that is built with the kernel. */
const flavour = (version: string, name: string): Kernel => ({
  ...rpm(version, `kernel-${name}-debuginfo`),
  release: `${version}.x86_64+${name}`,
})

const deb = (
  release: string,
  version: string,
  prefix = 'linux-image-',
  suffix = '-dbg',
): Kernel => ({
  name: `${prefix}${release}${suffix}`,
  version,
  release,
})

export const ROWS: readonly Row[] = [
  {
    source: 'debian',
    version: '12',
    kernels: [deb('6.1.0-50-amd64', '6.1.190-1')],
    others: [
      'linux-image-amd64-dbg',
      'linux-image-6.1-amd64-dbg',
      'linux-image-6.1.0-50-amd64',
      'linux-headers-6.1.0-50-amd64',
    ],
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'debian-archive',
    version: '10',
    kernels: [deb('4.19.0-27-amd64', '4.19.316-1')],
    others: ['linux-image-amd64-dbg'],
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'debian-snapshot',
    version: '10',
    kernels: [deb('4.19.0-5-amd64', '4.19.37-5')],
    others: ['linux-image-amd64-dbg', 'linux-image-4.19.0-5-amd64'],
    signed: 'nothing',
    authenticated: 'none', // by a server without TLS
  },
  {
    // back-ports belong to the release that they run on
    source: 'debian-snapshot',
    version: '12',
    kernels: [
      deb('6.1.0-50-amd64', '6.1.190-1'),
      deb('6.10.11+bpo-amd64', '6.10.11-1~bpo12+1'),
      deb('6.12.9+deb12-amd64', '6.12.9-1~deb12u1'),
    ],
    elsewhere: [
      deb('6.1.0-0.deb11.22-amd64', '6.1.94-1~deb11u1'),
      deb('6.1.0-0.deb11.7-amd64', '6.1.20-2~bpo11+1'),
      deb('6.12.9-amd64', '6.12.9-1'),
    ],
    others: [],
    signed: 'nothing',
    authenticated: 'none',
  },
  {
    source: 'raspberrypi',
    version: '12',
    arch: 'armv5tel',
    kernels: [deb('6.12.25+rpt-rpi-v6', '1:6.12.25-1+rpt1')],
    others: [
      'linux-image-rpi-v6-dbg',
      'linux-image-6.12.25+rpt-rpi-v7-dbg',
      'linux-image-6.12.25+rpt-rpi-v6',
    ],
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'ubuntu',
    version: '20.04',
    kernels: [
      deb('5.4.0-42-generic', '5.4.0-42.46', 'linux-image-unsigned-', '-dbgsym'),
      deb('5.4.0-1009-raspi', '5.4.0-1009.9', 'linux-image-', '-dbgsym'),
    ],
    others: ['linux-image-5.4.0-42-generic-dbgsym', 'linux-image-generic-dbgsym'],
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'ubuntu-launchpad',
    version: '20.04',
    kernels: [deb('5.4.0-42-generic', '5.4.0-42.46', 'linux-image-unsigned-', '-dbgsym')],
    others: ['linux-image-5.4.0-42-generic-dbgsym', 'linux-image-generic-dbgsym'],
    signed: 'nothing',
    authenticated: 'none', // by a server without TLS
  },
  {
    source: 'centos',
    version: '7',
    kernels: [rpm('3.10.0-957.el7')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'centos-stream',
    version: '9',
    repository: '9-stream-rt',
    kernels: [rpm('5.14.0-474.el9'), flavour('5.14.0-474.el9', 'rt')],
    others: [...RPM_OTHERS, 'kernel-rt-debug-debuginfo', 'kernel-rt-debuginfo-common-x86_64'],
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'rhel',
    version: '8',
    repository: '8.1-eus',
    kernels: [
      rpm('4.18.0-147.13.2.el8_1'),
      rpm('4.18.0-147.13.2.rt24.112.el8_1', 'kernel-rt-debuginfo'),
    ],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'rhel',
    version: '7',
    arch: 'aarch64',
    repository: '7-alt',
    kernels: [rpm('4.14.0-115.40.1.el7a', 'kernel-debuginfo', 'aarch64')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'rhel',
    version: '7',
    repository: '7.6-eus',
    kernels: [rpm('3.10.0-957.99.1.el7')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'alma',
    version: '9',
    arch: 'aarch64',
    kernels: [rpm('5.14.0-503.11.1.el9_5', 'kernel-debuginfo', 'aarch64')],
    others: RPM_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'alma',
    version: '8',
    arch: 'ppc64le',
    kernels: [rpm('4.18.0-553.el8_10', 'kernel-debuginfo', 'ppc64le')],
    others: RPM_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'rocky',
    version: '8',
    kernels: [rpm('4.18.0-553.el8_10')],
    others: RPM_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'fedora',
    version: '45',
    kernels: [rpm('7.1.8-300.fc45')],
    others: RPM_OTHERS,
    signed: 'nothing',
    authenticated: 'digest',
  },
  {
    source: 'fedora-archive',
    version: '42',
    arch: 'ppc64le',
    kernels: [rpm('6.14.0-63.fc42', 'kernel-debuginfo', 'ppc64le')],
    others: RPM_OTHERS,
    signed: 'nothing',
    authenticated: 'none',
  },
  {
    source: 'fedora-archive',
    version: '29',
    kernels: [rpm('4.18.16-300.fc29')],
    others: RPM_OTHERS,
    signed: 'nothing',
    authenticated: 'none',
  },
  {
    source: 'ol',
    version: '7',
    kernels: [rpm('3.10.0-1160.el7'), rpm('4.14.35-2047.el7uek', 'kernel-uek-debuginfo')],
    others: [...RPM_OTHERS, 'kernel-uek-debug-debuginfo', 'kernel-uek-debuginfo-common'],
    signed: 'nothing',
    authenticated: 'digest',
  },
  {
    source: 'ol',
    version: '10',
    kernels: [rpm('6.12.0-55.el10'), rpm('6.12.0-1.el10uek', 'kernel-uek-debuginfo')],
    others: [...RPM_OTHERS, 'kernel-uek-debug-debuginfo', 'kernel-uek-debuginfo-common'],
    signed: 'nothing',
    authenticated: 'digest',
  },
  {
    source: 'amzn',
    version: '2',
    kernels: [rpm('4.14.225-168.357.amzn2')],
    others: RPM_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'sles',
    version: '15.3',
    kernels: [
      {
        name: 'kernel-default-debuginfo',
        version: '5.3.18-57.3.1',
        release: '5.3.18-57.3-default',
      },
      { name: 'kernel-azure-debuginfo', version: '5.3.18-38.3.1', release: '5.3.18-38.3-azure' },
    ],
    others: SUSE_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'opensuse-leap',
    version: '15.0',
    kernels: [
      {
        name: 'kernel-default-debuginfo',
        version: '4.12.14-lp150.12.82.1',
        release: '4.12.14-lp150.12.82-default',
      },
    ],
    others: LEAP_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'alinux',
    version: '2',
    kernels: [rpm('4.19.91-26.al7')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'anolis',
    version: '8',
    kernels: [rpm('4.19.91-25.8.an8')],
    others: RPM_OTHERS,
    signed: 'nothing',
    authenticated: 'digest',
  },
  {
    source: 'openeuler',
    version: '22.03',
    repository: 'LTS-SP3-update',
    kernels: [rpm('5.10.0-60.18.0.50.oe2203')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'kylin',
    version: 'V10',
    repository: 'V10SP3',
    kernels: [rpm('4.19.90-52.22.v2207.ky10')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'hce',
    version: '2.0',
    kernels: [rpm('5.10.0-60.18.0.50.r865_35.hce2')],
    others: RPM_OTHERS,
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'tencentos',
    version: '2.4',
    kernels: [
      { name: 'kernel-debuginfo', version: '5.4.119-19.0006.tl2', release: '5.4.119-19-0006' },
      {
        name: 'kernel-tlinux3-debuginfo',
        version: '4.14.105-1.0013.tl2',
        release: '4.14.105-1-tlinux3-0013',
      },
    ],
    others: RPM_OTHERS,
    signed: 'nothing',
    authenticated: 'none',
  },
  {
    source: 'photon',
    version: '3.0',
    kernels: [
      { name: 'linux-debuginfo', version: '4.19.283-3.ph3', release: '4.19.283-3.ph3' },
      { name: 'linux-esx-debuginfo', version: '4.19.283-3.ph3', release: '4.19.283-3.ph3-esx' },
    ],
    others: ['linux-rt-debuginfo', 'linux-tools-debuginfo', 'linux-firmware'],
    signed: 'header',
    authenticated: 'header',
  },
  {
    source: 'azurelinux',
    version: '3.0',
    kernels: [{ name: 'kernel-debuginfo', version: '6.6.57.1-6.azl3', release: '6.6.57.1-6.azl3' }],
    others: RPM_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
  {
    source: 'mariner',
    version: '2.0',
    kernels: [
      { name: 'kernel-debuginfo', version: '5.15.153.1-2.cm2', release: '5.15.153.1-2.cm2' },
    ],
    others: RPM_OTHERS,
    signed: 'index',
    authenticated: 'index',
  },
]

/** The distribution's path of vmlinux in a package. */
const vmlinuxPath = ({ name, version, release }: Kernel): string => {
  if (version.endsWith('.tl2')) return `boot/vmlinux-${release}`
  if (/[.](ph|azl|cm)[0-9]/.test(release))
    return `usr/lib/debug/lib/modules/${release}/vmlinux-${release}`
  if (name.startsWith('linux-image')) return `usr/lib/debug/boot/vmlinux-${release}`
  if (/^kernel-(default|azure)-/.test(name)) return `usr/lib/debug/boot/vmlinux-${release}.debug`
  return `usr/lib/debug/lib/modules/${release}/vmlinux`
}

/** The input that all rows share. */
interface Workshop {
  t: Test
  directory: string
  images: Images
  signer: Signer
  /** a signer whose key has expired since */
  lapsed: Signer
  /** path of a file as large as the smallest package with debug info */
  padding: string
  /** packages that are not kernels, by name and architecture; each is made once */
  others: Map<string, string>
}

/** Makes the repository of each row, generates from it, and compares the catalog with the row. */
export async function tryDistributions(t: Test, images: Images, rows = ROWS): Promise<void> {
  const { directory } = await makeRunDirectory(t)
  const padding = join(directory, 'padding')
  writeFileSync(padding, Buffer.alloc(10_000_000, 'modules'))
  const signers = { signer: makeSigner(t), lapsed: makeSigner(t, { lapsed: true }) }
  const common = { images, padding, others: new Map(), ...signers }
  for (const row of rows) {
    const { source, version, arch, repository } = row
    const title = [source, version, arch, repository].filter(Boolean).join(' ')
    await t.test(title, async (t) => {
      await tryRow({ t, directory: join(directory, title.replaceAll(' ', '-')), ...common }, row)
    })
  }
}

async function tryRow(workshop: Workshop, row: Row): Promise<void> {
  const { t, images, directory } = workshop
  await mkdir(directory)
  const { arch: packaged = 'x86_64' } = row
  const arch = images.arch(packaged)
  const source = await build(workshop, row, arch)
  const { distro } = source
  const runDirectory = await makeRunDirectory(t)
  const filter = { distro, version: row.version, arch }
  const mirror = { url: `file://${directory}/debian`, source }
  const summary = await runDirectory.run(mirror, { filter, from: 'debug', jobs: 2 })
  const clean = { published: row.kernels.length, failed: {}, sourcesFailed: 0, skipped: 0 }
  t.match(summary, clean, 'all kernels are found and generated')
  if (summary.sourcesFailed > 0) t.same(await runDirectory.sourceFailures(), [])
  t.same(
    (await runDirectory.records())
      .map(({ kernel, package: from, failure }) => ({
        distro: kernel.distro,
        version: kernel.version,
        arch: kernel.arch,
        release: kernel.release,
        name: from.name,
        package: from.version,
        authenticated: from.authenticated,
        failure,
      }))
      .sort(byRelease),
    row.kernels
      .map(({ name, version, release }) => ({
        distro,
        version: row.version,
        arch,
        release,
        name,
        package: version,
        authenticated: row.authenticated,
        failure: undefined,
      }))
      .sort(byRelease),
  )
  await runDirectory.verify()
  t.match(await runDirectory.run(mirror, { filter, from: 'debug' }), {
    ...clean,
    published: 0,
    skipped: row.kernels.length,
  })
}

const byRelease = (a: { release: string }, b: { release: string }): number =>
  a.release < b.release ? -1 : 1

/** Makes the repository of a row, and returns its source: only hosts, keys and architectures differ from the table. */
async function build(workshop: Workshop, row: Row, arch: string): Promise<Source> {
  const { signer, lapsed, directory } = workshop
  const known = SOURCES.get(row.source)!
  const { arch: packaged = 'x86_64' } = row
  const keys = row.source === 'debian-archive' ? lapsed : signer
  const { access: _, ...open } = known
  const changed = {
    ...open,
    architectures: { [arch]: known.architectures[packaged] },
    versions: { [row.version]: repositoriesOf(known, row.version, packaged) },
    ...('keyrings' in known && {
      keyrings: row.signed === 'nothing' ? ['/nowhere'] : [keys.keyring],
    }),
  }
  const at = (mirror: string) => parseSource({ ...changed, mirror })
  switch (known.protocol) {
    case 'apt': {
      const source = at(`file://${directory}`)
      buildApt(workshop, row, source, keys)
      return source
    }
    case 'rpm-md': {
      const source = at(`file://${directory}`)
      for (const target of targetsOf(source, row))
        buildRpmMd(workshop, row, target, hasKernels(source, row, target))
      return source
    }
    case 'listing': {
      const source = at(await startNginx(workshop.t, directory, { listing: true }))
      for (const target of targetsOf(source, row))
        await buildListing(workshop, row, target, hasKernels(source, row, target))
      return source
    }
    case 'launchpad': {
      const packages = debsOf(workshop, row)
      const binaries = packages.map(({ file, name, version }) => ({ file, name, version }))
      return at(`${(await startLaunchpad(workshop.t, binaries)).url}/devel`)
    }
    case 'snapshot': {
      const files = debsOf(workshop, row).map(({ file, version }) => ({ version, path: file }))
      const { url } = await startSnapshot(workshop.t, files)
      const versions = { [row.version]: known.versions[row.version]!.slice(0, 1) }
      return parseSource({ ...changed, versions, mirror: url })
    }
    default:
      throw new Error(`no test repository for the protocol ${known.protocol}`)
  }
}

const targetsOf = (source: Source, { version }: Row) => indexTargetsOf(source, { version })

/** Tells whether a repository has the kernels of a row. */
const hasKernels = (source: Source, row: Row, target: IndexTarget): boolean =>
  row.repository === undefined
    ? target.repository === targetsOf(source, row)[0]?.repository
    : nameOfRepository(target.repository) === row.repository

/** The repositories of a version that have the architecture, for any architecture of the test. */
function repositoriesOf(source: Source, version: string, packaged: string) {
  return source.versions[version]!.filter(({ only }) => only?.includes(packaged) ?? true).map(
    ({ only: _, ...repository }) => repository,
  )
}

/** Makes the packages of a row: kernels and others. */
function debsOf(workshop: Workshop, row: Row) {
  const { directory, images, padding } = workshop
  const { source, kernels, elsewhere = [], others, arch = 'x86_64' } = row
  const architecture = SOURCES.get(source)!.architectures[arch]!
  const packages = [...kernels, ...elsewhere].map((kernel) => {
    const { name, version, release } = kernel
    const image = join(directory, 'vmlinux')
    images.make(image, release, arch)
    const files = { [vmlinuxPath(kernel)]: image, 'usr/lib/debug/modules': padding }
    const options = { name, version, release, architecture, files, compression: 'none' } as const
    return { name, version, file: makePackage(directory, undefined, options) }
  })
  const [{ version }] = kernels as [Kernel]
  const shims = others.map((name) => {
    const options = { name, version, architecture }
    return { name, version, file: makePackage(directory, undefined, options) }
  })
  return [...packages, ...shims]
}

function buildApt(workshop: Workshop, row: Row, source: Source, signer: Signer): void {
  const { directory } = workshop
  const all = debsOf(workshop, row).map(({ file }) => file)
  const compressions = ['xz', 'gzip', 'zstd'] as const
  for (const [i, target] of indexTargetsOf(source, { version: row.version }).entries()) {
    const { repository } = target as IndexTarget<Extract<Source, { protocol: 'apt' }>>
    const base = baseOf(target, (name) => `file://${directory}/${name}`).slice('file://'.length)
    const components = 'components' in source ? source.components : []
    // All packages are in the last component of the first suite, and again in the second suite.
    const filled = components.map((name, at) => [
      name,
      at === components.length - 1 && i < 2 ? all : [],
    ])
    makeSuite(base, {
      suite: repository.suite,
      architecture: source.architectures[target.arch]!,
      components: Object.fromEntries(filled),
      signer,
      compression: compressions[i % compressions.length]!,
      ...(row.source === 'debian-archive' && { validUntil: 'Sat, 01 Jan 2022 00:00:00 UTC' }),
    })
  }
}

function rpmsOf(workshop: Workshop, row: Row): string[] {
  const { directory, images, signer } = workshop
  const { kernels, others, arch = 'x86_64', signed } = row
  const sign = signed === 'header' && { signer }
  const image = join(directory, 'vmlinux')
  const made = kernels.map((kernel) => {
    const [version = '', release = ''] = kernel.version.split(/-(?=[^-]*$)/)
    images.make(image, kernel.release, arch)
    const files = { [vmlinuxPath(kernel)]: image }
    const { name } = kernel
    return makeRpm(directory, { name, version, release, arch, files, payload: 'zstd', ...sign })
  })
  return [...made, ...otherRpms(workshop, others, arch)]
}

/** Makes packages with versions that every distribution's rules accept, so that only their names exclude them. */
function otherRpms(workshop: Workshop, names: readonly string[], arch: string): string[] {
  const { padding, others } = workshop
  const folder = dirname(padding)
  const note = join(folder, 'note')
  writeFileSync(note, 'no kernel')
  const files = { 'usr/share/doc/note': note }
  return names.map((name) => {
    const key = `${name}.${arch}`
    const made = others.get(key)
    if (made !== undefined) return made
    const file = makeRpm(folder, { name, arch, version: '9.9.9', release: '9.9.9', files })
    others.set(key, file)
    return file
  })
}

/** Makes an rpm-md repository. The first one of a version has the kernels, the others have none. */
function buildRpmMd(workshop: Workshop, row: Row, target: IndexTarget, first: boolean): void {
  const { signer } = workshop
  const template = 'url' in target.repository ? target.repository.url : ''
  let base = baseOf(target, () => '').slice('file://'.length)
  if (/mirror\.list$/.test(template)) base = makeMirrorList(base)
  makeRpmRepository(base, { packages: first ? rpmsOf(workshop, row) : [], form: 'both' })
  if (row.signed === 'index') signRepomd(base, signer)
}

/** Writes a mirror list with a folder beside it as the first mirror. */
function makeMirrorList(list: string): string {
  const folder = list.replace(/\/mirror\.list$/, '')
  makeRpmRepository(`${folder}/by-id`)
  writeFileSync(list, `file://${folder}/by-id/\nfile:///nowhere/\n`)
  return `${folder}/by-id`
}

async function buildListing(
  workshop: Workshop,
  row: Row,
  target: IndexTarget,
  first: boolean,
): Promise<void> {
  const { directory } = workshop
  const path = new URL(baseOf(target, () => '')).pathname
  const folder = join(directory, path)
  await mkdir(folder, { recursive: true })
  const files = first ? rpmsOf(workshop, row) : otherRpms(workshop, row.others, 'x86_64')
  for (const file of files) copyFileSync(file, join(folder, basename(file)))
}
