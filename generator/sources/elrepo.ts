/*
 * ELRepo: kernels of kernel.org's long-term (kernel-lt) and mainline (kernel-ml) series for Red Hat's distributions and
 * their rebuilds. It publishes no debug info and builds without BTF, so its kernels are made of headers.
 */
import { perVersion, RPM_ARCHITECTURES, rpmKeys } from './conventions.ts'
import type { Source } from './source.ts'

export const ELREPO_SOURCES: readonly Source[] = [
  {
    id: 'elrepo',
    distro: 'elrepo',
    protocol: 'rpm-md',
    mirror: 'https://elrepo.org/linux',
    optIn: true,
    keyrings: rpmKeys('elrepo', 'RPM-GPG-KEY-elrepo.org', 'RPM-GPG-KEY-v2-elrepo.org'),
    // the second signs since 2025
    fingerprints: [
      '96C0104F631547311E0BB1AE309BC305BAADAE52',
      'B8A755874DA240C9DAC4E71551600989EAA31D4A',
    ],
    keyUrls: [
      'https://www.elrepo.org/RPM-GPG-KEY-elrepo.org',
      'https://www.elrepo.org/RPM-GPG-KEY-v2-elrepo.org',
    ],
    versions: perVersion(['7', '8', '9', '10'], (version) => [
      { name: 'kernel', url: `{mirror}/kernel/el${version}/{arch}` },
    ]),
    architectures: RPM_ARCHITECTURES,
    packages: [],
    vmlinux: [],
    devel: [{ name: 'kernel-(lt|ml)-devel', release: '{version}-{revision}.{arch}' }],
  },
]
