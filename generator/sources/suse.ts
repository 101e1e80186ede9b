/* SUSE Linux Enterprise Server and openSUSE Leap. */
import { collectedKeys, perVersion, RPM_ARCHITECTURES, X86_64 } from './conventions.ts'
import type { NamingRule } from './naming.ts'
import type { Source } from './source.ts'

// The last number of a revision counts builds, and `uname -r` does not have it.
const SUSE_RELEASE = { revision: '(?<build>.+)[.][0-9]+', release: '{version}-{build}-{flavour}' }

/** Debug info of all kernel flavours but those that `except` (a regular expression) matches. */
export const suseDebuginfo = (except: string): NamingRule[] => [
  {
    name: 'kernel-(?<flavour>[a-z0-9_]+)-debuginfo',
    except: `kernel-(${except})-debuginfo`,
    ...SUSE_RELEASE,
  },
]
// Only these: kernel-devel, kernel-macros, kernel-source and others have no kernel.
export const SUSE_IMAGES: NamingRule[] = [
  { name: 'kernel-(?<flavour>default|azure|64kb)', ...SUSE_RELEASE },
]
// The image is called Image on aarch64.
export const SUSE_VMLINUZ = ['vmlinuz', 'Image'].flatMap((name) => [
  `boot/${name}-{release}`,
  `usr/lib/modules/{release}/${name}`,
  `lib/modules/{release}/${name}`,
])
export const SUSE_VMLINUX = [
  'usr/lib/debug/boot/vmlinux-{release}.debug',
  'usr/lib/debug/usr/lib/modules/{release}/vmlinux.debug',
  'usr/lib/debug/lib/modules/{release}/vmlinux.debug',
]

/** SUSE builds for more machines than most. */
const SLES_ARCHITECTURES = { ...RPM_ARCHITECTURES, ppc64le: 'ppc64le', s390x: 's390x' }

/** Repositories of debug info: the product as it was released, and its updates. */
const suseRepositories = (product: string) => [
  { name: 'pool', url: `{mirror}/Products/${product}/{arch}/product_debug` },
  { name: 'updates', url: `{mirror}/Updates/${product}/{arch}/update_debug` },
]

/** Repositories of kernel images, in the same pair. */
const suseImages = (product: string) => {
  const common = { images: true, only: Object.keys(RPM_ARCHITECTURES) }
  return [
    { name: 'pool-os', url: `{mirror}/Products/${product}/{arch}/product`, ...common },
    { name: 'updates-os', url: `{mirror}/Updates/${product}/{arch}/update`, ...common },
  ]
}

/** Updates after the general support, which have a subscription of their own. */
const suseLongTerm = (product: string) => ({
  name: 'ltss',
  url: `{mirror}/Updates/${product}-LTSS/{arch}/update_debug`,
  optional: true,
})

/** The repositories of a module with another kernel flavour, for the machines that it is made for. */
const suseModule = (module: string, pack: string, only: string[]) =>
  suseRepositories(`SLE-Module-${module}/${pack}`).map(({ name, url }) => ({
    name: `${module.toLowerCase()}-${name}`,
    url,
    only,
    optional: true,
  }))

/** The repositories of SLES 15 with a service pack, `15-SP1`, or without, `15`. */
const sles15 = (pack: string) => [
  ...suseRepositories(`SLE-Module-Basesystem/${pack}`),
  suseLongTerm(`SLE-Product-SLES/${pack}`),
  ...suseModule('Public-Cloud', pack, Object.keys(RPM_ARCHITECTURES)), // kernel-azure
]

/** The keys of SUSE Linux Enterprise: the one of 12 and 15, and the one since 2023. */
const SLE_FINGERPRINTS = [
  'FEAB502539D846DB2C0961CA70AF9E8139DB7C82',
  '7F009157B127B994D5CFBE76F74F09BC3FA1D6CE',
]

/** Their addresses; SUSE's own servers need a subscription. */
const SLE_KEY_URLS = collectedKeys(
  'suse',
  'RPM-GPG-KEY-SuSE-SLE-12',
  'RPM-GPG-KEY-SuSE-SLE-Main-2023',
)

/** Leap for other machines than x86_64, as long as it was a port. */
const LEAP_PORTS = {
  name: 'ports',
  url: '{mirror}/ports/aarch64/debug/distribution/leap/{version}/repo/oss',
  only: ['aarch64'],
}

/** The repositories of Leap since 15.3, whose kernels are those of SUSE Linux Enterprise. */
const LEAP_REPOSITORIES = [
  { name: 'oss', url: '{mirror}/debug/distribution/leap/{version}/repo/oss' },
  { name: 'update-oss', url: '{mirror}/debug/update/leap/{version}/oss' },
  { name: 'update-sle', url: '{mirror}/debug/update/leap/{version}/sle' },
  { name: 'oss-os', url: '{mirror}/distribution/leap/{version}/repo/oss', images: true },
  { name: 'update-oss-os', url: '{mirror}/update/leap/{version}/oss', images: true },
  { name: 'update-sle-os', url: '{mirror}/update/leap/{version}/sle', images: true },
]

export const SUSE_SOURCES: readonly Source[] = [
  {
    id: 'sles',
    distro: 'sles',
    protocol: 'rpm-md',
    mirror: 'https://updates.suse.com/SUSE',
    optIn: true,
    access: { tokens: '/etc/zypp/repos.d' },
    signed: true,
    keyrings: [
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-39db7c82-5f68629b.asc',
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-3fa1d6ce-63c9481c.asc',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-15',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-12',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-Main-2023',
    ],
    fingerprints: SLE_FINGERPRINTS,
    keyUrls: SLE_KEY_URLS,
    versions: {
      ...perVersion(['12.3', '12.4', '12.5'], (version) => {
        const product = `SLE-SERVER/12-SP${version.slice(3)}`
        return [...suseRepositories(product), suseLongTerm(product)]
      }),
      '15.0': sles15('15'),
      ...perVersion(['15.1', '15.2', '15.3', '15.4', '15.5', '15.6'], (version) => {
        const pack = `15-SP${version.slice(3)}`
        return [
          ...sles15(pack),
          ...suseModule('RT', pack, X86_64),
          ...suseImages(`SLE-Module-Basesystem/${pack}`),
        ]
      }),
    },
    architectures: SLES_ARCHITECTURES,
    packages: suseDebuginfo('preempt'),
    vmlinux: SUSE_VMLINUX,
    images: SUSE_IMAGES,
    vmlinuz: SUSE_VMLINUZ,
  },
  {
    id: 'opensuse-leap',
    distro: 'opensuse-leap',
    protocol: 'rpm-md',
    mirror: ['https://download.opensuse.org', 'https://ftp.gwdg.de/pub/opensuse'],
    signed: true,
    keyrings: [
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-3dbdc284-53674dd4.asc',
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-29b700a4-62b07e22.asc',
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-39db7c82-5f68629b.asc',
      '/usr/lib/rpm/gnupg/keys/gpg-pubkey-3fa1d6ce-63c9481c.asc',
      '/usr/share/distribution-gpg-keys/opensuse/RPM-GPG-KEY-openSUSE',
      '/usr/share/distribution-gpg-keys/opensuse/RPM-GPG-KEY-openSUSE-2022',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-15',
      '/usr/share/distribution-gpg-keys/suse/RPM-GPG-KEY-SuSE-SLE-Main-2023',
    ],
    fingerprints: [
      '22C07BA534178CD02EFE22AAB88B2FD43DBDC284',
      'AD485664E901B867051AB15F35A2F86E29B700A4',
      ...SLE_FINGERPRINTS,
    ],
    keyUrls: [
      'https://download.opensuse.org/distribution/leap/15.6/repo/oss/gpg-pubkey-29b700a4-62b07e22.asc',
      'https://download.opensuse.org/distribution/leap/16.0/repo/oss/repodata/repomd.xml.key',
      ...collectedKeys('opensuse', 'RPM-GPG-KEY-openSUSE', 'RPM-GPG-KEY-openSUSE-2022'),
      ...SLE_KEY_URLS,
    ],
    // Signed by a key that expired on 2024-05-02, after their last update.
    endOfLife: ['15.0', '15.1', '15.2', '15.3'],
    versions: {
      ...perVersion(['15.0', '15.1', '15.2'], () => [
        { name: 'oss', url: '{mirror}/debug/distribution/leap/{version}/repo/oss', only: X86_64 },
        LEAP_PORTS,
        { name: 'update-oss', url: '{mirror}/debug/update/leap/{version}/oss', only: X86_64 },
      ]),
      '15.3': [...LEAP_REPOSITORIES, { ...LEAP_PORTS, optional: true }],
      ...perVersion(['15.4', '15.5', '15.6'], () => LEAP_REPOSITORIES),
    },
    architectures: RPM_ARCHITECTURES,
    packages: suseDebuginfo('preempt|debug|vanilla|rt|rt_debug'),
    vmlinux: SUSE_VMLINUX,
    images: SUSE_IMAGES,
    vmlinuz: SUSE_VMLINUZ,
  },
]
