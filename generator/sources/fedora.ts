/* Fedora: the current releases, and the archive of those at their end of life. */
import {
  perVersion,
  RPM_ARCHITECTURES,
  RPM_DEBUGINFO,
  RPM_IMAGES,
  RPM_VMLINUX,
  RPM_VMLINUZ,
  range,
  rpmKeys,
  X86_64,
} from './conventions.ts'
import type { Source } from './source.ts'

export const FEDORA_SOURCES: readonly Source[] = [
  {
    id: 'fedora',
    distro: 'fedora',
    protocol: 'rpm-md',
    mirror: 'https://dl.fedoraproject.org/pub/fedora/linux',
    keyrings: rpmKeys('fedora', 'RPM-GPG-KEY-fedora-{version}-primary'),
    versions: perVersion(range(42, 44), (version) => [
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
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
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
      ...perVersion(range(24, 27), (version) => [
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
      ...perVersion(range(28, 31), (version) => [
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
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
  },
]
