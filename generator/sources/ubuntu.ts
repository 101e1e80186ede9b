/* Ubuntu: ddebs.ubuntu.com for debug info, the archives for kernel images, and Launchpad for everything superseded. */
import { X86_64 } from './conventions.ts'
import { DEBIAN_VMLINUX, DEBIAN_VMLINUZ } from './debian.ts'
import type { NamingRule } from './naming.ts'
import type { Source } from './source.ts'

/** Debian's architecture names by `uname -m` name. */
const UBUNTU_ARCHITECTURES = {
  x86_64: 'amd64',
  aarch64: 'arm64',
  armv7l: 'armhf',
  ppc64le: 'ppc64el',
  s390x: 's390x',
  riscv64: 'riscv64',
}
// ports.ubuntu.com has all architectures but those of archive.ubuntu.com.
const PORTS = Object.keys(UBUNTU_ARCHITECTURES).filter((arch) => arch !== 'x86_64')

/** Code names by VERSION_ID. */
const SERIES = {
  '16.04': 'xenial',
  '18.04': 'bionic',
  '20.04': 'focal',
  '22.04': 'jammy',
  '24.04': 'noble',
  '26.04': 'resolute',
}

// The debug symbols are those of the unsigned image. A dbgsym package of the signed image only depends on them.
export const UBUNTU_DBGSYM: NamingRule[] = [
  { name: 'linux-image-unsigned-(?<uname>[0-9]+[.][0-9].*)-dbgsym', release: '{uname}' },
  { name: 'linux-image-(?<uname>[0-9]+[.][0-9].*)-dbgsym', release: '{uname}' },
]
const UBUNTU_MIN_SIZE = 10_000_000
// The signed and the unsigned image have the same kernel.
const UBUNTU_IMAGES: NamingRule[] = [
  {
    name: 'linux-image-(unsigned-)?(?<uname>[0-9]+[.][0-9].*)',
    except: '.*-dbgsym',
    release: '{uname}',
  },
]

/** The keys of the archive, of 2012 and 2018. */
const ARCHIVE_FINGERPRINTS = [
  '790BC7277767219C42C86F933B4FE6ACC0B21F32',
  'F6ECB3762474EDA9D21B7022871920D1991BC93C',
]

/** Their addresses. The archive itself has no TLS. */
const ARCHIVE_KEY_URLS = ARCHIVE_FINGERPRINTS.map(
  (fingerprint) =>
    `https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x${fingerprint}`,
)

export const UBUNTU_SOURCES: readonly Source[] = [
  {
    id: 'ubuntu',
    distro: 'ubuntu',
    protocol: 'apt',
    mirror: 'http://ddebs.ubuntu.com',
    keyrings: [
      '/usr/share/keyrings/ubuntu-dbgsym-keyring.gpg',
      '/usr/share/keyrings/ubuntu-archive-keyring.gpg',
    ],
    fingerprints: ['F2EDC64DC5AEE1F6B9C621F0C8CAB6595FDFF622', ...ARCHIVE_FINGERPRINTS],
    keyUrls: [
      'https://ddebs.ubuntu.com/dbgsym-release-key.asc',
      'https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0xF2EDC64DC5AEE1F6B9C621F0C8CAB6595FDFF622',
      ...ARCHIVE_KEY_URLS,
    ],
    components: ['main', 'universe'],
    versions: Object.fromEntries(
      Object.entries(SERIES).map(([version, suite]) => [
        version,
        [
          { url: '{mirror}', suite },
          { url: '{mirror}', suite: `${suite}-updates` },
        ],
      ]),
    ),
    architectures: UBUNTU_ARCHITECTURES,
    packages: UBUNTU_DBGSYM,
    minSize: UBUNTU_MIN_SIZE,
    vmlinux: DEBIAN_VMLINUX,
  },
  {
    id: 'ubuntu-images',
    distro: 'ubuntu',
    protocol: 'apt',
    keyrings: ['/usr/share/keyrings/ubuntu-archive-keyring.gpg'],
    fingerprints: ARCHIVE_FINGERPRINTS,
    keyUrls: ARCHIVE_KEY_URLS,
    components: ['main', 'universe'],
    versions: Object.fromEntries(
      Object.entries(SERIES)
        .filter(([version]) => Number(version) >= 20)
        .map(([version, name]) => [
          version,
          [name, `${name}-updates`].flatMap((suite) => [
            { url: 'http://archive.ubuntu.com/ubuntu', suite, only: X86_64, images: true },
            { url: 'http://ports.ubuntu.com/ubuntu-ports', suite, only: PORTS, images: true },
          ]),
        ]),
    ),
    architectures: UBUNTU_ARCHITECTURES,
    packages: UBUNTU_DBGSYM,
    vmlinux: DEBIAN_VMLINUX,
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
    versions: Object.fromEntries(
      Object.entries(SERIES).map(([version, series]) => [version, [{ url: '{mirror}', series }]]),
    ),
    architectures: UBUNTU_ARCHITECTURES,
    packages: UBUNTU_DBGSYM,
    minSize: UBUNTU_MIN_SIZE,
    vmlinux: DEBIAN_VMLINUX,
  },
]
