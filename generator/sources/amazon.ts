/*
 * Amazon Linux 1 (VERSION_ID 2018), 2 and 2023. Its repositories are lists of mirrors. Those of 2 and 2023 name packages
 * outside themselves: `../../../../../blobstore/…` on the same server. Those of 1 have no TLS.
 */
import {
  collectedKeys,
  RPM_ARCHITECTURES,
  RPM_UNSPLIT_IMAGES,
  RPM_VMLINUX,
  RPM_VMLINUZ,
  rpmKeys,
  X86_64,
} from './conventions.ts'
import type { Source } from './source.ts'

export const AMAZON_SOURCES: readonly Source[] = [
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
    fingerprints: [
      '99E617FE5DB527C0D8BD5F8E11CF1F95C87F5B1A',
      'B21C50FA44A99720EAA72F7FE951904AD832C631',
    ],
    keyUrls: collectedKeys(
      'amazon-linux',
      'RPM-GPG-KEY-amazon-linux-2',
      'RPM-GPG-KEY-amazon-linux-2023',
    ),
    versions: {
      2018: [
        {
          name: 'main',
          url: 'https://repo.us-east-1.amazonaws.com/latest/main/debuginfo/mirror.list',
          list: 'plain',
          only: X86_64,
        },
        {
          name: 'updates',
          url: 'https://repo.us-east-1.amazonaws.com/latest/updates/debuginfo/mirror.list',
          list: 'plain',
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
    architectures: RPM_ARCHITECTURES,
    packages: [{ name: 'kernel([0-9.]+)?-debuginfo', release: '{version}-{revision}.{arch}' }],
    vmlinux: RPM_VMLINUX,
    images: RPM_UNSPLIT_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
]
