/* SUSE Linux Enterprise Server and openSUSE Leap. */
import { perVersion, RPM_ARCHITECTURES, X86_64 } from './conventions.ts'
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

/** Repositories of debug info: the product as it was released, and its updates. */
const suseRepositories = (product: string) => [
  { name: 'pool', url: `{mirror}/Products/${product}/{arch}/product_debug` },
  { name: 'updates', url: `{mirror}/Updates/${product}/{arch}/update_debug` },
]

/** Repositories of kernel images, in the same pair. */
const suseImages = (product: string) => [
  { name: 'pool-os', url: `{mirror}/Products/${product}/{arch}/product`, images: true },
  { name: 'updates-os', url: `{mirror}/Updates/${product}/{arch}/update`, images: true },
]

export const SUSE_SOURCES: readonly Source[] = [
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
      ...perVersion(['12.3', '12.4', '12.5'], (version) =>
        suseRepositories(`SLE-SERVER/12-SP${version.slice(3)}`),
      ),
      '15.0': suseRepositories('SLE-Module-Basesystem/15'),
      ...perVersion(['15.1', '15.2', '15.3', '15.4', '15.5', '15.6'], (version) => {
        const product = `SLE-Module-Basesystem/15-SP${version.slice(3)}`
        return [...suseRepositories(product), ...suseImages(product)]
      }),
    },
    architectures: RPM_ARCHITECTURES,
    packages: suseDebuginfo('preempt'),
    vmlinux: SUSE_VMLINUX,
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
      ...perVersion(['15.0', '15.1', '15.2'], () => [
        { name: 'oss', url: '{mirror}/debug/distribution/leap/{version}/repo/oss', only: X86_64 },
        {
          name: 'ports',
          url: '{mirror}/ports/aarch64/debug/distribution/leap/{version}/repo/oss',
          only: ['aarch64'],
        },
        { name: 'update-oss', url: '{mirror}/debug/update/leap/{version}/oss', only: X86_64 },
      ]),
      ...perVersion(['15.3', '15.4', '15.5', '15.6'], () => [
        { name: 'oss', url: '{mirror}/debug/distribution/leap/{version}/repo/oss' },
        { name: 'update-oss', url: '{mirror}/debug/update/leap/{version}/oss' },
        { name: 'update-sle', url: '{mirror}/debug/update/leap/{version}/sle' },
        { name: 'oss-os', url: '{mirror}/distribution/leap/{version}/repo/oss', images: true },
        { name: 'update-oss-os', url: '{mirror}/update/leap/{version}/oss', images: true },
        { name: 'update-sle-os', url: '{mirror}/update/leap/{version}/sle', images: true },
      ]),
    },
    architectures: RPM_ARCHITECTURES,
    packages: suseDebuginfo('preempt|debug|vanilla|rt|rt_debug'),
    vmlinux: SUSE_VMLINUX,
    images: SUSE_IMAGES,
    vmlinuz: SUSE_VMLINUZ,
  },
]
