/* openEuler's long-term support releases with their service packs, and the distributions that are built from it. */
import {
  collectedKeys,
  debugAndImages,
  RPM_UNSPLIT_KERNELS,
  range,
  rpmKeys,
} from './conventions.ts'
import type { Source } from './source.ts'

export const OPENEULER_SOURCES: readonly Source[] = [
  {
    id: 'openeuler',
    distro: 'openeuler',
    ...RPM_UNSPLIT_KERNELS,
    mirror: 'https://repo.openeuler.org',
    keyrings: rpmKeys('openeuler', 'RPM-GPG-KEY-openEuler', 'RPM-GPG-KEY-openEuler-EulerMaker'),
    fingerprints: [
      '12EA74AC9DF48D46C69CA0BED557065EB25E7F66',
      '8AA16BF9F2CA5244010DCA963B477C60B675600B', // EulerMaker, from 22.03-SP1 on
    ],
    keyUrls: [
      ...['20.03-LTS', '22.03-LTS-SP3'].map(
        (name) => `https://repo.openeuler.org/openEuler-${name}/OS/x86_64/RPM-GPG-KEY-openEuler`,
      ),
      ...collectedKeys('openeuler', 'RPM-GPG-KEY-openEuler', 'RPM-GPG-KEY-openEuler-EulerMaker'),
    ],
    versions: Object.fromEntries(
      Object.entries({ '20.03': 4, '22.03': 4, '24.03': 2 }).map(([version, packs]) => [
        version,
        ['LTS', ...range(1, packs).map((pack) => `LTS-SP${pack}`)].flatMap((name) => {
          const root = `{mirror}/openEuler-${version}-${name}`
          return [
            ...debugAndImages(name, `${root}/debuginfo/{arch}`, `${root}/OS/{arch}`),
            // both updated kernels and their debug info
            { name: `${name}-update`, url: `${root}/update/{arch}` },
          ]
        }),
      ]),
    ),
  },
  {
    id: 'kylin',
    distro: 'kylin',
    ...RPM_UNSPLIT_KERNELS,
    mirror: 'https://update.cs2c.com.cn/NS',
    keyrings: rpmKeys('kylin', 'RPM-GPG-KEY-kylin'),
    fingerprints: ['B8149E6852864585CE41143B41F8AEBE7A486D9F'],
    keyUrls: collectedKeys('kylin', 'RPM-GPG-KEY-kylin'),
    versions: {
      V10: ['V10SP1', 'V10SP1.1', 'V10SP2', 'V10SP3'].flatMap((name) => {
        const updates = `{mirror}/{version}/${name}/os/adv/lic/updates/{arch}`
        return debugAndImages(name, `${updates}/debug`, updates)
      }),
    },
  },
  {
    id: 'hce',
    distro: 'hce',
    ...RPM_UNSPLIT_KERNELS,
    mirror: 'https://repo.huaweicloud.com/hce',
    keyrings: ['/etc/pki/rpm-gpg/RPM-GPG-KEY-HCE-2'],
    versions: {
      '2.0': [
        ...debugAndImages(
          'debuginfo',
          '{mirror}/{version}/debuginfo/{arch}',
          '{mirror}/{version}/os/{arch}',
        ),
        { name: 'updates-os', url: '{mirror}/{version}/updates/{arch}', images: true },
      ],
    },
  },
]
