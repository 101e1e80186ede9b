/*
 * The sources that btfmill knows, one row each, and those of a user, whose rows override them. Where two rows have the
 * same words, the distributions do; where they differ, the distributions do, too.
 */
import { readFile } from 'node:fs/promises'
import type { KernelFilter } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { NamingRule } from './naming.ts'
import { parseSource, type Source } from './source.ts'

/** Architectures by `uname -m` name, in Debian's words, and in RPM's. */
const DEBIAN = {
  x86_64: 'amd64',
  aarch64: 'arm64',
  i686: 'i386',
  armv7l: 'armhf',
  armv5tel: 'armel',
  ppc64le: 'ppc64el',
  s390x: 's390x',
  mips: 'mipsel',
  mips64: 'mips64el',
  riscv64: 'riscv64',
  loongarch64: 'loong64',
}
const UBUNTU = {
  x86_64: 'amd64',
  aarch64: 'arm64',
  armv7l: 'armhf',
  ppc64le: 'ppc64el',
  s390x: 's390x',
  riscv64: 'riscv64',
}
const RPM = { x86_64: 'x86_64', aarch64: 'aarch64' }

// metapackages (linux-image-686-pae-dbg, linux-image-6.1-686-pae-dbg in backports) have no version there, or half of one
const DEBIAN_UNAME = '(?<uname>[0-9]+[.][0-9]+([.]|-rc)[0-9].*)'
// kernels of 64 bits for a userland of 32
const DEBIAN_MIPS64 = '(?<uname>[0-9].*-(5kc-malta|loongson-3|mips64r2el|octeon))'
const DEBIAN_DBG: NamingRule[] = [
  { name: `linux-image-${DEBIAN_MIPS64}-dbg`, machine: 'mips64', release: '{uname}' },
  { name: `linux-image-${DEBIAN_UNAME}-dbg`, release: '{uname}' },
]
const DEBIAN_PATHS = [
  'usr/lib/debug/boot/vmlinux-{release}',
  'usr/lib/debug/lib/modules/{release}/vmlinux',
]

// from 7.x linux-image-… is a metapackage, and linux-binary-… has the kernel
const DEBIAN_IMAGES: NamingRule[] = [
  ...['linux-binary', 'linux-image'].flatMap((name) => [
    { name: `${name}-${DEBIAN_MIPS64}`, machine: 'mips64', release: '{uname}' },
    { name: `${name}-${DEBIAN_UNAME}`, except: '.*-(dbg|unsigned)', release: '{uname}' },
  ]),
  { name: `linux-(binary|image)-${DEBIAN_UNAME}-unsigned`, release: '{uname}' },
]
// some machines' are not packed, and called vmlinux
const DEBIAN_VMLINUZ = [
  'boot/vmlinuz-{release}',
  'boot/vmlinux-{release}',
  'usr/lib/modules/{release}/vmlinuz',
  'usr/lib/modules/{release}/vmlinux',
]

// the unsigned image has the debug info; where the signed one has a package, too, that depends on it
const UBUNTU_DBGSYM: NamingRule[] = [
  { name: 'linux-image-unsigned-(?<uname>[0-9]+[.][0-9].*)-dbgsym', release: '{uname}' },
  { name: 'linux-image-(?<uname>[0-9]+[.][0-9].*)-dbgsym', release: '{uname}' },
]
const UBUNTU_SMALLEST = 10_000_000
// both have the kernel, and only one of them is signed
const UBUNTU_IMAGES: NamingRule[] = [
  {
    name: 'linux-image-(unsigned-)?(?<uname>[0-9]+[.][0-9].*)',
    except: '.*-dbgsym',
    release: '{uname}',
  },
]

// exactly this name: neither kernel-debug-debuginfo nor kernel-debuginfo-common-x86_64
const RPM_DEBUGINFO: NamingRule[] = [
  { name: 'kernel-debuginfo', release: '{version}-{revision}.{arch}' },
]
const RPM_IMAGES: NamingRule[] = [
  { name: 'kernel(-uek)?-core', release: '{version}-{revision}.{arch}' },
]
// where it is not split, kernel has it; where it is, kernel is a metapackage beside the one above
const RPM_WHOLE: NamingRule[] = [
  { name: 'kernel([0-9.]+)?', release: '{version}-{revision}.{arch}' },
]
const RPM_VMLINUZ = [
  'boot/vmlinuz-{release}',
  'lib/modules/{release}/vmlinuz',
  'usr/lib/modules/{release}/vmlinuz',
]
const ORACLE_DEBUGINFO: NamingRule[] = [
  { name: 'kernel(-uek)?-debuginfo', release: '{version}-{revision}.{arch}' },
]
const RPM_PATHS = [
  'usr/lib/debug/lib/modules/{release}/vmlinux',
  'usr/lib/debug/usr/lib/modules/{release}/vmlinux',
]

/** SUSE's: the last number of a revision counts builds, and `uname -r` does not have it. */
const SUSE_RELEASE = { revision: '(?<build>.+)[.][0-9]+', release: '{version}-{build}-{flavour}' }
const suse = (except: string): NamingRule[] => [
  {
    name: 'kernel-(?<flavour>[a-z0-9_]+)-debuginfo',
    except: `kernel-(${except})-debuginfo`,
    ...SUSE_RELEASE,
  },
]
// kernel-devel, kernel-macros, kernel-source and others have no kernel
const SUSE_IMAGES: NamingRule[] = [
  { name: 'kernel-(?<flavour>default|azure|64kb)', ...SUSE_RELEASE },
]
// Image on aarch64
const SUSE_VMLINUZ = ['vmlinuz', 'Image'].flatMap((name) => [
  `boot/${name}-{release}`,
  `usr/lib/modules/{release}/${name}`,
  `lib/modules/{release}/${name}`,
])
const SUSE_PATHS = [
  'usr/lib/debug/boot/vmlinux-{release}.debug',
  'usr/lib/debug/usr/lib/modules/{release}/vmlinux.debug',
  'usr/lib/debug/lib/modules/{release}/vmlinux.debug',
]

/** Where RPM distributions have a key, and where the collection of all their keys has it. */
const rpmKeys = (vendor: string, ...names: string[]): string[] => [
  ...names.map((name) => `/etc/pki/rpm-gpg/${name}`),
  ...names.map((name) => `/usr/share/distribution-gpg-keys/${vendor}/${name}`),
]

/** The repositories of each version, made alike. */
const each = <T>(
  versions: readonly string[],
  make: (version: string) => T[],
): Record<string, T[]> => Object.fromEntries(versions.map((version) => [version, make(version)]))

const range = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

const X86_64 = ['x86_64']

/** SUSE's pairs of repositories: what a product was released with, and what came after. */
const suseRepositories = (product: string) => [
  { name: 'pool', url: `{mirror}/Products/${product}/{arch}/product_debug` },
  { name: 'updates', url: `{mirror}/Updates/${product}/{arch}/update_debug` },
]
const suseImages = (product: string) => [
  { name: 'pool-os', url: `{mirror}/Products/${product}/{arch}/product`, images: true },
  { name: 'updates-os', url: `{mirror}/Updates/${product}/{arch}/update`, images: true },
]

const ROWS: readonly Source[] = [
  {
    id: 'debian',
    distro: 'debian',
    protocol: 'apt',
    keyrings: ['/usr/share/keyrings/debian-archive-keyring.gpg'],
    components: ['main'],
    versions: {
      11: [
        { url: 'debian', suite: 'bullseye' },
        { url: 'debian', suite: 'bullseye-updates' },
        { url: 'debian-security', suite: 'bullseye-security' },
      ],
      ...Object.fromEntries(
        Object.entries({ 12: 'bookworm', 13: 'trixie' }).map(([version, name]) => [
          version,
          [
            { url: 'debian', suite: name },
            { url: 'debian', suite: `${name}-updates` },
            { url: 'debian', suite: `${name}-backports` },
            { url: 'debian-security', suite: `${name}-security` },
          ],
        ]),
      ),
      sid: [{ url: 'debian', suite: 'sid' }],
    },
    architectures: DEBIAN,
    packages: DEBIAN_DBG,
    vmlinux: DEBIAN_PATHS,
    images: DEBIAN_IMAGES,
    vmlinuz: DEBIAN_VMLINUZ,
  },
  {
    id: 'debian-archive',
    distro: 'debian',
    protocol: 'apt',
    mirror: 'http://archive.debian.org',
    optIn: true,
    endOfLife: true,
    keyrings: [
      '/usr/share/keyrings/debian-archive-keyring.gpg',
      '/usr/share/keyrings/debian-archive-removed-keys.gpg',
    ],
    components: ['main'],
    versions: {
      9: [
        { url: '{mirror}/debian', suite: 'stretch' },
        { url: '{mirror}/debian', suite: 'stretch-backports' },
        { url: '{mirror}/debian-security', suite: 'stretch/updates' },
      ],
      10: [
        { url: '{mirror}/debian', suite: 'buster' },
        { url: '{mirror}/debian', suite: 'buster-backports' },
        { url: '{mirror}/debian-security', suite: 'buster/updates' },
      ],
    },
    architectures: DEBIAN,
    packages: DEBIAN_DBG,
    vmlinux: DEBIAN_PATHS,
  },
  {
    id: 'debian-snapshot',
    distro: 'debian',
    protocol: 'snapshot',
    mirror: 'https://snapshot.debian.org',
    optIn: true,
    versions: {
      9: [
        { url: '{mirror}', package: 'linux', matching: '4[.]9[.].*' },
        { url: '{mirror}', package: 'linux-4.19', matching: '4[.]19[.].*' },
      ],
      10: [
        { url: '{mirror}', package: 'linux', matching: '4[.]19[.].*' },
        { url: '{mirror}', package: 'linux-5.10', matching: '5[.]10[.].*' },
      ],
      11: [{ url: '{mirror}', package: 'linux', matching: '5[.]10[.].*' }],
      12: [{ url: '{mirror}', package: 'linux', matching: '6[.]1[.].*' }],
    },
    architectures: DEBIAN,
    packages: DEBIAN_DBG,
    vmlinux: DEBIAN_PATHS,
    images: DEBIAN_IMAGES,
    vmlinuz: DEBIAN_VMLINUZ,
  },
  {
    id: 'ubuntu',
    distro: 'ubuntu',
    protocol: 'apt',
    mirror: 'http://ddebs.ubuntu.com',
    keyrings: [
      '/usr/share/keyrings/ubuntu-dbgsym-keyring.gpg',
      '/usr/share/keyrings/ubuntu-archive-keyring.gpg',
    ],
    components: ['main', 'universe'],
    versions: Object.fromEntries(
      Object.entries({
        '16.04': 'xenial',
        '18.04': 'bionic',
        '20.04': 'focal',
        '22.04': 'jammy',
        '24.04': 'noble',
        '26.04': 'resolute',
      }).map(([version, suite]) => [
        version,
        [
          { url: '{mirror}', suite },
          { url: '{mirror}', suite: `${suite}-updates` },
        ],
      ]),
    ),
    architectures: UBUNTU,
    packages: UBUNTU_DBGSYM,
    minSize: UBUNTU_SMALLEST,
    vmlinux: DEBIAN_PATHS,
  },
  {
    id: 'ubuntu-images',
    distro: 'ubuntu',
    protocol: 'apt',
    keyrings: ['/usr/share/keyrings/ubuntu-archive-keyring.gpg'],
    components: ['main', 'universe'],
    versions: Object.fromEntries(
      Object.entries({
        '20.04': 'focal',
        '22.04': 'jammy',
        '24.04': 'noble',
        '26.04': 'resolute',
      }).map(([version, name]) => [
        version,
        [name, `${name}-updates`].flatMap((suite) => [
          {
            ...{ url: 'http://archive.ubuntu.com/ubuntu', suite },
            ...{ only: X86_64, images: true },
          },
          {
            ...{ url: 'http://ports.ubuntu.com/ubuntu-ports', suite },
            ...{ only: Object.keys(UBUNTU).filter((arch) => arch !== 'x86_64'), images: true },
          },
        ]),
      ]),
    ),
    architectures: UBUNTU,
    packages: UBUNTU_DBGSYM,
    vmlinux: DEBIAN_PATHS,
    images: UBUNTU_IMAGES,
    vmlinuz: DEBIAN_VMLINUZ,
  },
  {
    id: 'ubuntu-launchpad',
    distro: 'ubuntu',
    protocol: 'launchpad',
    mirror: 'https://api.launchpad.net/devel',
    optIn: true,
    hosts: ['launchpad.net', 'launchpadlibrarian.net'],
    versions: {
      '16.04': [{ url: '{mirror}', series: 'xenial' }],
      '18.04': [{ url: '{mirror}', series: 'bionic' }],
      '20.04': [{ url: '{mirror}', series: 'focal' }],
      '22.04': [{ url: '{mirror}', series: 'jammy' }],
      '24.04': [{ url: '{mirror}', series: 'noble' }],
      '26.04': [{ url: '{mirror}', series: 'resolute' }],
    },
    architectures: UBUNTU,
    packages: UBUNTU_DBGSYM,
    minSize: UBUNTU_SMALLEST,
    vmlinux: DEBIAN_PATHS,
  },
  {
    id: 'centos',
    distro: 'centos',
    protocol: 'listing',
    mirror: 'http://debuginfo.centos.org',
    keyrings: rpmKeys('centos', 'RPM-GPG-KEY-CentOS-Debug-7', 'RPM-GPG-KEY-CentOS-Official'),
    versions: {
      7: [{ name: '7', url: '{mirror}/7/{arch}' }],
      8: [
        { name: '8', url: '{mirror}/8/{arch}/Packages' },
        { name: '8-stream', url: '{mirror}/8-stream/{arch}/Packages' },
      ],
    },
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
  },
  {
    id: 'centos-stream',
    distro: 'centos',
    protocol: 'rpm-md',
    mirror: 'https://mirror.stream.centos.org',
    keyrings: rpmKeys('centos', 'RPM-GPG-KEY-CentOS-Official', 'RPM-GPG-KEY-centosofficial'),
    versions: each(['9', '10'], (version) => [
      { name: `${version}-stream`, url: `{mirror}/${version}-stream/BaseOS/{arch}/debug/tree` },
      {
        name: `${version}-stream-os`,
        url: `{mirror}/${version}-stream/BaseOS/{arch}/os`,
        images: true,
      },
    ]),
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'rhel',
    distro: 'rhel',
    protocol: 'rpm-md',
    mirror: 'https://cdn.redhat.com/content',
    optIn: true,
    access: {
      certificate: '/etc/btfmill/rhel.pem',
      key: '/etc/btfmill/rhel-key.pem',
      authority: '/etc/rhsm/ca/redhat-uep.pem',
    },
    keyrings: rpmKeys(
      'redhat',
      'RPM-GPG-KEY-redhat-release',
      'RPM-GPG-KEY-redhat{version}-release',
    ),
    versions: {
      7: [
        { name: '7', url: '{mirror}/dist/rhel/server/7/7Server/{arch}/debug', only: X86_64 },
        { name: '7-els', url: '{mirror}/els/rhel/server/7/7Server/{arch}/debug', only: X86_64 },
      ],
      ...each(['8', '9', '10'], (version) => [
        { name: version, url: `{mirror}/dist/rhel${version}/${version}/{arch}/baseos/debug` },
        {
          name: `${version}-os`,
          url: `{mirror}/dist/rhel${version}/${version}/{arch}/baseos/os`,
          images: true,
        },
      ]),
    },
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'alma',
    distro: 'almalinux',
    protocol: 'rpm-md',
    mirror: 'https://repo.almalinux.org/almalinux',
    keyrings: rpmKeys('alma', 'RPM-GPG-KEY-AlmaLinux-{version}', 'RPM-GPG-KEY-AlmaLinux'),
    versions: each(['8', '9', '10'], (version) => [
      { name: version, url: '{mirror}/{version}/BaseOS/debug/{arch}' },
      { name: `${version}-os`, url: '{mirror}/{version}/BaseOS/{arch}/os', images: true },
    ]),
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'rocky',
    distro: 'rocky',
    protocol: 'rpm-md',
    mirror: 'https://dl.rockylinux.org/pub/rocky',
    keyrings: rpmKeys(
      'rocky',
      'RPM-GPG-KEY-Rocky-{version}',
      'RPM-GPG-KEY-rockyofficial',
      'RPM-GPG-KEY-rocky',
    ),
    versions: each(['8', '9', '10'], (version) => [
      { name: version, url: '{mirror}/{version}/BaseOS/{arch}/debug/tree' },
      { name: `${version}-os`, url: '{mirror}/{version}/BaseOS/{arch}/os', images: true },
    ]),
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'fedora',
    distro: 'fedora',
    protocol: 'rpm-md',
    mirror: 'https://dl.fedoraproject.org/pub/fedora/linux',
    keyrings: rpmKeys('fedora', 'RPM-GPG-KEY-fedora-{version}-primary'),
    versions: each(range(42, 44), (version) => [
      { name: version, url: '{mirror}/releases/{version}/Everything/{arch}/debug/tree' },
      { name: `${version}-updates`, url: '{mirror}/updates/{version}/Everything/{arch}/debug' },
      {
        name: `${version}-os`,
        url: '{mirror}/releases/{version}/Everything/{arch}/os',
        images: true,
      },
      {
        name: `${version}-updates-os`,
        url: '{mirror}/updates/{version}/Everything/{arch}',
        images: true,
      },
    ]),
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'fedora-archive',
    distro: 'fedora',
    protocol: 'listing',
    mirror: 'https://archives.fedoraproject.org/pub/archive/fedora/linux',
    keyrings: rpmKeys(
      'fedora',
      'RPM-GPG-KEY-fedora-{version}-primary',
      'RPM-GPG-KEY-fedora-{version}-x86_64',
    ),
    versions: {
      ...each(range(24, 27), (version) => [
        {
          name: version,
          url: '{mirror}/releases/{version}/Everything/{arch}/debug/tree/Packages/k',
          only: X86_64,
        },
        {
          name: `${version}-updates`,
          url: `{mirror}/updates/{version}/{arch}/debug/${version === '24' ? '' : 'Packages/'}k`,
          only: X86_64,
        },
      ]),
      ...each(range(28, 31), (version) => [
        {
          name: version,
          url: '{mirror}/releases/{version}/Everything/{arch}/debug/tree/Packages/k',
        },
        {
          name: `${version}-updates`,
          url: '{mirror}/updates/{version}/Everything/{arch}/debug/Packages/k',
        },
      ]),
    },
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
  },
  {
    id: 'ol',
    distro: 'ol',
    protocol: 'listing',
    mirror: 'https://oss.oracle.com',
    keyrings: rpmKeys('oraclelinux', 'RPM-GPG-KEY-oracle', 'RPM-GPG-KEY-oracle-ol{version}'),
    versions: each(['7', '8', '9'], (version) => [
      { name: version, url: '{mirror}/ol{version}/debuginfo' },
    ]),
    architectures: RPM,
    packages: ORACLE_DEBUGINFO,
    vmlinux: RPM_PATHS,
  },
  {
    id: 'ol-images',
    distro: 'ol',
    protocol: 'rpm-md',
    mirror: 'https://yum.oracle.com/repo/OracleLinux',
    keyrings: rpmKeys('oraclelinux', 'RPM-GPG-KEY-oracle', 'RPM-GPG-KEY-oracle-ol{version}'),
    versions: each(['8', '9'], () => [
      { name: 'baseos', url: '{mirror}/OL{version}/baseos/latest/{arch}', images: true },
      { name: 'uekr7', url: '{mirror}/OL{version}/UEKR7/{arch}', images: true },
    ]),
    architectures: RPM,
    packages: ORACLE_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'amzn',
    distro: 'amzn',
    protocol: 'rpm-md',
    mirror: 'https://cdn.amazonlinux.com',
    keyrings: rpmKeys(
      'amazon-linux',
      'RPM-GPG-KEY-amazon-linux-{version}',
      'RPM-GPG-KEY-amazon-ga',
    ),
    versions: {
      2018: [
        {
          name: 'main',
          url: 'https://repo.us-east-1.amazonaws.com/latest/main/debuginfo/mirror.list',
          list: true,
          only: X86_64,
        },
        {
          name: 'updates',
          url: 'https://repo.us-east-1.amazonaws.com/latest/updates/debuginfo/mirror.list',
          list: true,
          only: X86_64,
        },
      ],
      2: [
        {
          name: 'core',
          url: '{mirror}/2/core/latest/debuginfo/{arch}/mirror.list',
          list: true,
        },
        ...['5.4', '5.10', '5.15'].flatMap((kernel) => [
          {
            name: `kernel-${kernel}`,
            url: `{mirror}/2/extras/kernel-${kernel}/latest/debuginfo/{arch}/mirror.list`,
            list: true,
          },
          {
            name: `kernel-${kernel}-os`,
            url: `{mirror}/2/extras/kernel-${kernel}/latest/{arch}/mirror.list`,
            list: true,
            images: true,
          },
        ]),
      ],
      2023: [
        {
          name: 'core',
          url: '{mirror}/al2023/core/mirrors/latest/debuginfo/{arch}/mirror.list',
          list: true,
        },
        {
          name: 'core-os',
          url: '{mirror}/al2023/core/mirrors/latest/{arch}/mirror.list',
          list: true,
          images: true,
        },
      ],
    },
    architectures: RPM,
    packages: [{ name: 'kernel([0-9.]+)?-debuginfo', release: '{version}-{revision}.{arch}' }],
    vmlinux: RPM_PATHS,
    images: RPM_WHOLE,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'sles',
    distro: 'sles',
    protocol: 'rpm-md',
    mirror: 'https://updates.suse.com/SUSE',
    optIn: true,
    access: { credentials: '/etc/zypp/credentials.d/SCCcredentials' },
    signed: true,
    keyrings: [
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-39db7c82-5f68629b.asc',
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-3fa1d6ce-63c9481c.asc',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-15',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-12',
    ],
    versions: {
      ...each(['12.3', '12.4', '12.5'], (version) =>
        suseRepositories(`SLE-SERVER/12-SP${version.slice(3)}`),
      ),
      '15.0': suseRepositories('SLE-Module-Basesystem/15'),
      ...each(['15.1', '15.2', '15.3', '15.4', '15.5', '15.6'], (version) => {
        const product = `SLE-Module-Basesystem/15-SP${version.slice(3)}`
        return [...suseRepositories(product), ...suseImages(product)]
      }),
    },
    architectures: RPM,
    packages: suse('preempt'),
    vmlinux: SUSE_PATHS,
    images: SUSE_IMAGES,
    vmlinuz: SUSE_VMLINUZ,
  },
  {
    id: 'opensuse-leap',
    distro: 'opensuse-leap',
    protocol: 'rpm-md',
    mirror: 'https://download.opensuse.org',
    signed: true,
    keyrings: [
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-3dbdc284-53674dd4.asc',
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-29b700a4-62b07e22.asc',
      '/usr/share/distribution-gpg-keys/opensuse/RPM-GPG-KEY-openSUSE',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-15',
    ],
    versions: {
      ...each(['15.0', '15.1', '15.2'], () => [
        { name: 'oss', url: '{mirror}/debug/distribution/leap/{version}/repo/oss', only: X86_64 },
        {
          name: 'ports',
          url: '{mirror}/ports/aarch64/debug/distribution/leap/{version}/repo/oss',
          only: ['aarch64'],
        },
        { name: 'update-oss', url: '{mirror}/debug/update/leap/{version}/oss', only: X86_64 },
      ]),
      ...each(['15.3', '15.4', '15.5', '15.6'], () => [
        { name: 'oss', url: '{mirror}/debug/distribution/leap/{version}/repo/oss' },
        { name: 'update-oss', url: '{mirror}/debug/update/leap/{version}/oss' },
        { name: 'update-sle', url: '{mirror}/debug/update/leap/{version}/sle' },
        { name: 'oss-os', url: '{mirror}/distribution/leap/{version}/repo/oss', images: true },
        { name: 'update-oss-os', url: '{mirror}/update/leap/{version}/oss', images: true },
        { name: 'update-sle-os', url: '{mirror}/update/leap/{version}/sle', images: true },
      ]),
    },
    architectures: RPM,
    packages: suse('preempt|debug|vanilla|rt|rt_debug'),
    vmlinux: SUSE_PATHS,
    images: SUSE_IMAGES,
    vmlinuz: SUSE_VMLINUZ,
  },
  {
    id: 'alinux',
    distro: 'alinux',
    protocol: 'rpm-md',
    mirror: 'https://mirrors.aliyun.com/alinux',
    keyrings: rpmKeys('alinux', 'RPM-GPG-KEY-ALIYUN', 'RPM-GPG-KEY-ALinux-{version}'),
    versions: {
      2: [{ name: 'plus', url: '{mirror}/2.1903/plus/{arch}/debug' }],
      3: [
        { name: 'plus', url: '{mirror}/3/plus/{arch}/debug' },
        { name: 'plus-os', url: '{mirror}/3/plus/{arch}', images: true },
      ],
    },
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: [...RPM_IMAGES, ...RPM_WHOLE],
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'anolis',
    distro: 'anolis',
    protocol: 'rpm-md',
    mirror: 'https://mirrors.openanolis.cn/anolis',
    keyrings: rpmKeys('anolis', 'RPM-GPG-KEY-ANOLIS'),
    versions: {
      7: [{ name: 'plus', url: '{mirror}/7.9/Plus/{arch}/debug' }],
      8: [
        { name: 'baseos', url: '{mirror}/8/BaseOS/{arch}/debug' },
        { name: 'plus', url: '{mirror}/8/Plus/{arch}/debug' },
        { name: 'baseos-os', url: '{mirror}/8/BaseOS/{arch}/os', images: true },
        { name: 'plus-os', url: '{mirror}/8/Plus/{arch}/os', images: true },
      ],
    },
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: [...RPM_IMAGES, ...RPM_WHOLE],
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'openeuler',
    distro: 'openeuler',
    protocol: 'rpm-md',
    mirror: 'https://repo.openeuler.org',
    keyrings: rpmKeys('openeuler', 'RPM-GPG-KEY-openEuler'),
    versions: Object.fromEntries(
      Object.entries({ '20.03': 4, '22.03': 4, '24.03': 2 }).map(([version, packs]) => [
        version,
        ['LTS', ...range(1, packs).map((pack) => `LTS-SP${pack}`)].flatMap((name) => {
          const root = `{mirror}/openEuler-${version}-${name}`
          return [
            { name, url: `${root}/debuginfo/{arch}` },
            { name: `${name}-os`, url: `${root}/OS/{arch}`, images: true },
            { name: `${name}-update-os`, url: `${root}/update/{arch}`, images: true },
          ]
        }),
      ]),
    ),
    architectures: RPM,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_PATHS,
    images: RPM_WHOLE,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'custom',
    distro: 'custom',
    protocol: 'files',
    versions: {},
    architectures: {},
    packages: [...DEBIAN_DBG, ...UBUNTU_DBGSYM, ...ORACLE_DEBUGINFO, ...suse('debug')],
    vmlinux: [...DEBIAN_PATHS, ...RPM_PATHS, ...SUSE_PATHS],
    images: [...DEBIAN_IMAGES, ...RPM_IMAGES, ...RPM_WHOLE, ...SUSE_IMAGES],
    vmlinuz: [...new Set([...DEBIAN_VMLINUZ, ...RPM_VMLINUZ, ...SUSE_VMLINUZ])],
  },
]

export const ALL_SOURCES: readonly Source[] = ROWS.map(parseSource)

/** They, by id. */
export const SOURCES: ReadonlyMap<string, Source> = new Map(
  ALL_SOURCES.map((source) => [source.id, source]),
)

/**
 * The sources that btfmill knows, and those of a user's file: a JSON array of rows, of which one with a known id needs
 * only the fields that it changes. Errors: `invalid_index`, with what is wrong.
 */
export async function readSources(path?: string): Promise<ReadonlyMap<string, Source>> {
  if (path === undefined) return SOURCES
  const rows = await parseRows(path)
  const sources = new Map(SOURCES)
  for (const row of rows) {
    const known = sources.get((row as Partial<Source> | null)?.id ?? '')
    const source = parseSource(known ? { ...known, ...(row as object) } : row)
    sources.set(source.id, source)
  }
  return sources
}

async function parseRows(path: string): Promise<unknown[]> {
  const refuse = (why: string, cause?: unknown): never => {
    throw new GeneratorError('invalid_index', `${path}: ${why}`, { cause })
  }
  try {
    const rows: unknown = JSON.parse(await readFile(path, 'utf8'))
    return Array.isArray(rows) ? rows : refuse('it is no array of sources')
  } catch (error) {
    if (error instanceof GeneratorError) throw error
    return refuse((error as Error).message, error)
  }
}

/**
 * Of these sources those that a run asks: the one that it names, else all, but for those that are asked on request, of
 * which it asks those with a version that it names and no other source has.
 */
export function sourcesFor(
  filter: KernelFilter,
  sources: readonly Source[] = ALL_SOURCES,
  named?: string,
): Source[] {
  if (named !== undefined) return sources.filter(({ id }) => id === named)
  const { distro, version = '' } = filter
  const usual = sources.filter(({ optIn }) => !optIn)
  const has = (source: Source) =>
    source.distro === distro && Object.hasOwn(source.versions, version)
  return usual.some(has) ? usual : [...usual, ...sources.filter((one) => one.optIn && has(one))]
}
