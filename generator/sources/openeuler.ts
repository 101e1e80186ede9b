/* openEuler's long-term support releases and their service packs. */
import {
  RPM_ARCHITECTURES,
  RPM_DEBUGINFO,
  RPM_UNSPLIT_IMAGES,
  RPM_VMLINUX,
  RPM_VMLINUZ,
  range,
  rpmKeys,
} from './conventions.ts'
import type { Source } from './source.ts'

export const OPENEULER_SOURCES: readonly Source[] = [
  {
    id: 'openeuler',
    distro: 'openeuler',
    protocol: 'rpm-md',
    mirror: 'https://repo.openeuler.org',
    keyrings: rpmKeys('openeuler', 'RPM-GPG-KEY-openEuler'),
    versions: Object.fromEntries(
      Object.entries({ '20.03': 4, '22.03': 4, '24.03': 2 }).map(([version, packs]) => [
        version,
        ['LTS', ...range(1, packs).map((pack) => `LTS-SP${pack}`)].flatMap((name) => {
          const root = `{mirror}/openEuler-${version}-${name}`
          return [
            { name, url: `${root}/debuginfo/{arch}` },
            { name: `${name}-os`, url: `${root}/OS/{arch}`, images: true },
            { name: `${name}-update-os`, url: `${root}/update/{arch}`, images: true },
          ]
        }),
      ]),
    ),
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
    images: RPM_UNSPLIT_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
]
