/* Red Hat Enterprise Linux and its rebuilds: CentOS, CentOS Stream, AlmaLinux, Rocky Linux. */
import {
  perVersion,
  RPM_ARCHITECTURES,
  RPM_DEBUGINFO,
  RPM_IMAGES,
  RPM_VMLINUX,
  RPM_VMLINUZ,
  rpmKeys,
  X86_64,
} from './conventions.ts'
import type { Source } from './source.ts'

export const REDHAT_SOURCES: readonly Source[] = [
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
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
  },
  {
    id: 'centos-stream',
    distro: 'centos',
    protocol: 'rpm-md',
    mirror: 'https://mirror.stream.centos.org',
    keyrings: rpmKeys('centos', 'RPM-GPG-KEY-CentOS-Official', 'RPM-GPG-KEY-centosofficial'),
    versions: perVersion(['9', '10'], (version) => [
      { name: `${version}-stream`, url: `{mirror}/${version}-stream/BaseOS/{arch}/debug/tree` },
      {
        name: `${version}-stream-os`,
        url: `{mirror}/${version}-stream/BaseOS/{arch}/os`,
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
      ...perVersion(['8', '9', '10'], (version) => [
        { name: version, url: `{mirror}/dist/rhel${version}/${version}/{arch}/baseos/debug` },
        {
          name: `${version}-os`,
          url: `{mirror}/dist/rhel${version}/${version}/{arch}/baseos/os`,
          images: true,
        },
      ]),
    },
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'alma',
    distro: 'almalinux',
    protocol: 'rpm-md',
    mirror: 'https://repo.almalinux.org/almalinux',
    keyrings: rpmKeys('alma', 'RPM-GPG-KEY-AlmaLinux-{version}', 'RPM-GPG-KEY-AlmaLinux'),
    versions: perVersion(['8', '9', '10'], (version) => [
      { name: version, url: '{mirror}/{version}/BaseOS/debug/{arch}' },
      { name: `${version}-os`, url: '{mirror}/{version}/BaseOS/{arch}/os', images: true },
    ]),
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
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
    versions: perVersion(['8', '9', '10'], (version) => [
      { name: version, url: '{mirror}/{version}/BaseOS/{arch}/debug/tree' },
      { name: `${version}-os`, url: '{mirror}/{version}/BaseOS/{arch}/os', images: true },
    ]),
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
]
