/* Oracle Linux: the Red Hat compatible kernel and the Unbreakable Enterprise Kernel (UEK). */
import { collectedKeys, RPM_DEBUGINFO, RPM_KERNELS, rpmKeys } from './conventions.ts'
import type { NamingRule } from './naming.ts'
import type { Source } from './source.ts'

export const ORACLE_DEBUGINFO: NamingRule[] = [
  { name: 'kernel-uek-debuginfo', release: '{version}-{revision}.{arch}' },
  ...RPM_DEBUGINFO,
]

/** Repositories of kernel images by version; kernels of 7 have no BTF. */
const IMAGES = {
  7: [],
  8: ['baseos/latest', 'UEKR7'],
  9: ['baseos/latest', 'UEKR7', 'UEKR8'],
  10: ['baseos/latest', 'UEKR8'],
}

export const ORACLE_SOURCES: readonly Source[] = [
  {
    id: 'ol',
    distro: 'ol',
    ...RPM_KERNELS,
    mirror: 'https://oss.oracle.com',
    keyrings: rpmKeys('oraclelinux', 'RPM-GPG-KEY-oracle', 'RPM-GPG-KEY-oracle-ol{version}'),
    fingerprints: [
      '42144123FECFC55B9086313D72F97B74EC551F03',
      '76FD3DB13AB67410B89DB10E82562EA9AD986DA3',
      '3E6D826D3FBAB389C2F38E34BC4D06A08D8B756F',
      '982231759C7467065D0CE9B2A7DD07088B4EFBE6',
    ],
    keyUrls: Object.keys(IMAGES).flatMap((version) => [
      `https://yum.oracle.com/RPM-GPG-KEY-oracle-ol${version}`,
      ...collectedKeys('oraclelinux', `RPM-GPG-KEY-oracle-ol${version}`),
    ]),
    versions: Object.fromEntries(
      Object.entries(IMAGES).map(([version, images]) => [
        version,
        [
          // one repository for all architectures
          { name: version, url: '{mirror}/ol{version}/debuginfo' },
          ...images.map((path) => ({
            name: path.replace('/latest', '').toLowerCase(),
            url: `https://yum.oracle.com/repo/OracleLinux/OL{version}/${path}/{arch}`,
            images: true,
          })),
        ],
      ]),
    ),
    packages: ORACLE_DEBUGINFO,
  },
]
