/*
 * Photon, and Azure Linux with its predecessor CBL-Mariner, whose kernel is packaged after Photon's: `uname -r` has no
 * architecture, and vmlinux has the release in its name.
 */
import {
  collectedKeys,
  debugAndImages,
  perVersion,
  RPM_ARCHITECTURES,
  rpmKeys,
  X86_64,
} from './conventions.ts'
import type { Source } from './source.ts'

const VMLINUX = ['usr/lib/debug/lib/modules/{release}/vmlinux-{release}']

/** What Azure Linux and CBL-Mariner have in common; most of their kernels have BTF. */
const AZURE = {
  protocol: 'rpm-md' as const,
  mirror: 'https://packages.microsoft.com',
  keyrings: rpmKeys('azure-linux', 'MICROSOFT-RPM-GPG-KEY', 'MICROSOFT-METADATA-GPG-KEY'),
  fingerprints: [
    '2BC94FFF7015A5F28F1537AD0CD9FED33135CE90',
    'BC528686B50D79E339D3721CEB3E94ADBE1229CF',
  ],
  keyUrls: [
    'https://packages.microsoft.com/keys/microsoft.asc',
    'https://raw.githubusercontent.com/microsoft/CBL-Mariner/2.0/SPECS/mariner-repos/MICROSOFT-RPM-GPG-KEY',
    ...collectedKeys('azure-linux', 'MICROSOFT-RPM-GPG-KEY', 'MICROSOFT-METADATA-GPG-KEY'),
  ],
  architectures: RPM_ARCHITECTURES,
  packages: [{ name: 'kernel-debuginfo', release: '{version}-{revision}' }],
  vmlinux: VMLINUX,
  images: [{ name: 'kernel', release: '{version}-{revision}' }],
  vmlinuz: ['boot/vmlinuz-{release}'],
}

/** The base repository of a release. */
const azureRepositories = (root: string) =>
  debugAndImages(
    'base',
    `${root}/{version}/prod/base/debuginfo/{arch}`,
    `${root}/{version}/prod/base/{arch}`,
  )

export const MINIMAL_SOURCES: readonly Source[] = [
  {
    id: 'photon',
    distro: 'photon',
    protocol: 'rpm-md',
    mirror: ['https://packages.broadcom.com/photon', 'https://packages.vmware.com/photon'],
    keyrings: ['/etc/pki/rpm-gpg/VMWARE-RPM-GPG-KEY-4096', '/etc/pki/rpm-gpg/VMWARE-RPM-GPG-KEY'],
    versions: perVersion(['3.0', '4.0', '5.0'], (version) => [
      {
        name: 'debuginfo',
        url: '{mirror}/{version}/photon_debuginfo_{version}_{arch}',
        ...(version === '3.0' && { only: X86_64 }),
      },
    ]),
    architectures: RPM_ARCHITECTURES,
    // linux-rt has the version of the real-time patches in `uname -r`, but not in its package's version.
    packages: [
      { name: 'linux-debuginfo', release: '{version}-{revision}' },
      {
        name: 'linux-(?<flavour>aws|esx|secure)-debuginfo',
        release: '{version}-{revision}-{flavour}',
      },
    ],
    vmlinux: VMLINUX,
  },
  {
    id: 'azurelinux',
    distro: 'azurelinux',
    ...AZURE,
    versions: { '3.0': azureRepositories('{mirror}/azurelinux') },
  },
  {
    id: 'mariner',
    distro: 'mariner',
    ...AZURE,
    versions: { '2.0': azureRepositories('{mirror}/cbl-mariner') },
  },
]
