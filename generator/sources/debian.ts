/*
 * Debian: the current releases, the archive of old ones, and snapshot.debian.org, which has every package ever; and
 * Raspberry Pi OS, which is Debian with kernels of its own.
 */
import type { NamingRule } from './naming.ts'
import type { Source } from './source.ts'

/** Debian's architecture names by `uname -m` name. */
export const DEBIAN_ARCHITECTURES = {
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

// Metapackages have no full version in their name: linux-image-686-pae-dbg, linux-image-6.1-686-pae-dbg in backports.
const DEBIAN_UNAME = '(?<uname>[0-9]+[.][0-9]+([.]|-rc)[0-9].*)'
// 64-bit kernels for the 32-bit userland of mipsel
const DEBIAN_MIPS64 = '(?<uname>[0-9].*-(5kc-malta|loongson-3|mips64r2el|octeon))'
export const DEBIAN_DEBUG: NamingRule[] = [
  { name: `linux-image-${DEBIAN_MIPS64}-dbg`, machine: 'mips64', release: '{uname}' },
  { name: `linux-image-${DEBIAN_UNAME}-dbg`, release: '{uname}' },
]
export const DEBIAN_VMLINUX = [
  'usr/lib/debug/boot/vmlinux-{release}',
  'usr/lib/debug/lib/modules/{release}/vmlinux',
]

// From 7.x on, linux-image-… is a metapackage and linux-binary-… has the kernel.
export const DEBIAN_IMAGES: NamingRule[] = [
  ...['linux-binary', 'linux-image'].flatMap((name) => [
    { name: `${name}-${DEBIAN_MIPS64}`, machine: 'mips64', release: '{uname}' },
    { name: `${name}-${DEBIAN_UNAME}`, except: '.*-(dbg|unsigned)', release: '{uname}' },
  ]),
  { name: `linux-(binary|image)-${DEBIAN_UNAME}-unsigned`, release: '{uname}' },
]
// Some architectures do not compress their kernel and call the image vmlinux.
export const DEBIAN_VMLINUZ = [
  'boot/vmlinuz-{release}',
  'boot/vmlinux-{release}',
  'usr/lib/modules/{release}/vmlinuz',
  'usr/lib/modules/{release}/vmlinux',
]

/** By release: the series of its kernel, and the source packages of newer ones that were built for it. */
const SERIES = {
  9: ['4.9', 'linux-4.19'],
  10: ['4.19', 'linux-5.10'],
  11: ['5.10', 'linux-6.1'],
  12: ['6.1', 'linux-6.12'],
  13: ['6.12'],
}

/**
 * The source packages of a release on snapshot.debian.org. A back-port (`~bpo12+1`, `~deb12u1`) runs on the release that
 * it names, whatever its series.
 */
const snapshotPackages = (release: string, [series = '', ...others]: string[]) => [
  {
    url: '{mirror}',
    package: 'linux',
    matching: `${series.replace('.', '[.]')}[.](?!.*~(bpo|deb)).*|.*~(bpo|deb)${release}[+u].*`,
  },
  ...others.map((name) => ({ url: '{mirror}', package: name, matching: '.*' })),
]

// Kernels for one architecture are also packaged for the userland of another: v8 for armhf.
const RASPBERRY_DEBUG: NamingRule[] = Object.entries({
  armv5tel: 'v6', // BCM2835 has an ARMv6, which Debian's armel runs on, too
  armv7l: 'v7l?',
  aarch64: '(v8|2712)(-.*)?',
}).map(([machine, flavours]) => ({
  name: `linux-image-(?<uname>[0-9].*-rpi-(${flavours}))-dbg`,
  machine,
  release: '{uname}',
}))
// From 6.12 on, the headers have what modules with BTF are linked against: an ELF file with the kernel's own .BTF.
const SINCE_6_12 = '(6[.](1[2-9]|[2-9][0-9])|([7-9]|[1-9][0-9])[.][0-9]+)([.]|-rc)[0-9]'
export const DEBIAN_HEADERS: NamingRule[] = [
  {
    name: `linux-headers-(?<uname>${SINCE_6_12}.*)`,
    except: `.*-common(-.*)?|linux-headers-${DEBIAN_MIPS64}`,
    release: '{uname}',
  },
]
export const DEBIAN_HEADERS_VMLINUX = ['usr/src/linux-headers-{release}/vmlinux']

/** Kernel headers of a flavour; those that all flavours have are in the package on which they depend. */
const DEBIAN_DEVEL: NamingRule[] = [
  { name: `linux-headers-${DEBIAN_MIPS64}`, machine: 'mips64', release: '{uname}' },
  {
    name: `linux-headers-${DEBIAN_UNAME}`,
    except: '.*-common(-.*)?',
    release: '{uname}',
  },
]
const DEBIAN_DEVEL_PARTS = ['linux-headers-*-common', 'linux-headers-*-common-*']

/** The kernel headers of Raspberry Pi OS: flavours as in its images. */
const RASPBERRY_DEVEL: NamingRule[] = Object.entries({
  armv5tel: 'v6',
  armv7l: 'v7l?',
  aarch64: '(v8|2712)(-.*)?',
}).map(([machine, flavours]) => ({
  name: `linux-headers-(?<uname>[0-9].*-rpi-(${flavours}))`,
  machine,
  release: '{uname}',
}))

/** Debian's releases that kernels of other vendors are built for. */
const CODENAMES = { 12: 'bookworm', 13: 'trixie' }

export const DEBIAN_SOURCES: readonly Source[] = [
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
    architectures: DEBIAN_ARCHITECTURES,
    packages: DEBIAN_DEBUG,
    vmlinux: DEBIAN_VMLINUX,
    images: DEBIAN_IMAGES,
    vmlinuz: DEBIAN_VMLINUZ,
    headers: DEBIAN_HEADERS,
    headersVmlinux: DEBIAN_HEADERS_VMLINUX,
    devel: DEBIAN_DEVEL,
    develParts: DEBIAN_DEVEL_PARTS,
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
    architectures: DEBIAN_ARCHITECTURES,
    packages: DEBIAN_DEBUG,
    vmlinux: DEBIAN_VMLINUX,
  },
  {
    id: 'debian-snapshot',
    distro: 'debian',
    protocol: 'snapshot',
    mirror: 'https://snapshot.debian.org',
    optIn: true,
    versions: Object.fromEntries(
      Object.entries(SERIES).map(([version, series]) => [
        version,
        snapshotPackages(version, series),
      ]),
    ),
    architectures: DEBIAN_ARCHITECTURES,
    packages: DEBIAN_DEBUG,
    vmlinux: DEBIAN_VMLINUX,
    images: DEBIAN_IMAGES,
    vmlinuz: DEBIAN_VMLINUZ,
  },
  {
    // ID and VERSION_ID of Raspberry Pi OS are Debian's
    id: 'raspberrypi',
    distro: 'debian',
    protocol: 'apt',
    mirror: 'https://archive.raspberrypi.com',
    optIn: true,
    keyrings: [
      '/usr/share/keyrings/raspberrypi-archive-keyring.pgp',
      '/usr/share/keyrings/raspberrypi-archive-keyring.gpg',
      '/usr/share/keyrings/raspberrypi-archive-stable.gpg',
    ],
    fingerprints: ['CF8A1AF502A2AA2D763BAE7E82B129927FA3303E'],
    keyUrls: ['https://archive.raspberrypi.com/debian/raspberrypi.gpg.key'],
    components: ['main'],
    versions: {
      12: [{ url: '{mirror}/debian', suite: 'bookworm' }],
      13: [{ url: '{mirror}/debian', suite: 'trixie' }],
    },
    architectures: { aarch64: 'arm64', armv7l: 'armhf', armv5tel: 'armhf' },
    packages: RASPBERRY_DEBUG,
    vmlinux: DEBIAN_VMLINUX,
    devel: RASPBERRY_DEVEL,
    develParts: DEBIAN_DEVEL_PARTS,
  },
  {
    // Proxmox VE calls itself Debian, too; its headers are in one package
    id: 'proxmox',
    distro: 'debian',
    protocol: 'apt',
    mirror: 'http://download.proxmox.com',
    optIn: true,
    keyrings: [
      '/usr/share/keyrings/proxmox-archive-keyring.gpg',
      '/etc/apt/trusted.gpg.d/proxmox-release-bookworm.gpg',
      '/etc/apt/trusted.gpg.d/proxmox-release-trixie.gpg',
    ],
    // of bookworm and of trixie
    fingerprints: [
      'F4E136C67CDCE41AE6DE6FC81140AF8F639E0C39',
      '24B30F06ECC1836A4E5EFECBA7BCD1420BFE778E',
    ],
    keyUrls: [
      'https://enterprise.proxmox.com/debian/proxmox-release-bookworm.gpg',
      'https://enterprise.proxmox.com/debian/proxmox-release-trixie.gpg',
    ],
    components: ['pve-no-subscription'],
    versions: Object.fromEntries(
      Object.entries(CODENAMES).map(([version, suite]) => [
        version,
        [{ url: '{mirror}/debian/pve', suite }],
      ]),
    ),
    architectures: { x86_64: 'amd64' },
    packages: [],
    vmlinux: [],
    devel: [
      { name: '(proxmox|pve)-headers-(?<uname>[0-9]+[.][0-9]+[.][0-9].*-pve)', release: '{uname}' },
    ],
  },
  {
    // Armbian calls itself Debian or Ubuntu; its packages are named after a board's family, and described by the release
    id: 'armbian',
    distro: 'debian',
    protocol: 'apt',
    mirror: 'https://apt.armbian.com',
    optIn: true,
    keyrings: [
      '/usr/share/keyrings/armbian.gpg',
      '/usr/share/keyrings/armbian-archive-keyring.gpg',
    ],
    // both sign
    fingerprints: [
      'DF00FAF1C577104B50BF1D0093D6889F9F0E78D5',
      '8CFA83D13EB2181EEF5843E41EB30FAF236099FE',
    ],
    keyUrls: ['https://apt.armbian.com/armbian.key'],
    components: ['main'],
    versions: Object.fromEntries(
      Object.entries(CODENAMES).map(([version, suite]) => [version, [{ url: '{mirror}', suite }]]),
    ),
    architectures: { aarch64: 'arm64', armv7l: 'armhf', x86_64: 'amd64', riscv64: 'riscv64' },
    packages: [],
    vmlinux: [],
    devel: [
      {
        name: 'linux-headers-(legacy|vendor|current|edge|bleedingedge)-[a-z0-9-]+',
        description: 'Armbian Linux [a-z]+ headers (?<uname>[0-9]\\S*)',
        release: '{uname}',
      },
    ],
  },
]
