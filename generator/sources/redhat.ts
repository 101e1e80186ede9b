/* Red Hat Enterprise Linux and its rebuilds: CentOS, CentOS Stream, AlmaLinux, Rocky Linux. */
import {
  ALL_RPM_ARCHITECTURES,
  collectedKeys,
  debugAndImages,
  perVersion,
  RPM_ARCHITECTURES,
  RPM_DEBUGINFO,
  RPM_KERNELS,
  RPM_VMLINUX,
  rpmKeys,
  X86_64,
} from './conventions.ts'
import type { Source } from './source.ts'

/**
 * The repositories of a release from version 8 on: BaseOS, and RT with the real-time kernel, which only x86_64 has. The
 * URLs are templates with `{repository}`.
 */
const elRepositories = (
  name: string,
  debug: string,
  images: string,
  [base, rt] = ['BaseOS', 'RT'],
  limits: { only?: string[] } = {},
) => {
  const at = (url: string, repository = '') => url.replace('{repository}', () => repository)
  return [
    ...debugAndImages(name, at(debug, base), at(images, base), limits),
    ...debugAndImages(`${name}-rt`, at(debug, rt), at(images, rt), { only: X86_64 }),
  ]
}

/** Repositories of RHEL 7: each architecture has its own tree, and 7.6 extended updates. */
const RHEL_7 = (
  [
    ['7', 'dist/rhel/server/7/7Server', 'x86_64'],
    ['7', 'dist/rhel/power-le/7/7Server', 'ppc64le'],
    ['7', 'dist/rhel/system-z/7/7Server', 's390x'],
    ['7-els', 'els/rhel/server/7/7Server', 'x86_64'],
    ['7.6-eus', 'eus/rhel/server/7/7.6', 'x86_64'],
    // kernel-alt, 4.14
    ['7-alt', 'dist/rhel-alt/server/7/7Server/armv8-a', 'aarch64'],
    ['7-alt', 'dist/rhel-alt/server/7/7Server/power9', 'ppc64le'],
    ['7-alt', 'dist/rhel-alt/server/7/7Server/system-z-a', 's390x'],
  ] as const
).map(([name, path, arch]) => ({ name, url: `{mirror}/${path}/{arch}/debug`, only: [arch] }))

/** Extended updates of 8.1, the last minor release whose kernels have no BTF. */
const RHEL_8_1 = [
  { name: '8.1-eus', url: '{mirror}/eus/rhel8/8.1/{arch}/baseos/debug' },
  {
    name: '8.1-e4s',
    url: '{mirror}/e4s/rhel8/8.1/{arch}/baseos/debug',
    only: ['x86_64', 'ppc64le'],
  },
]

const CENTOS_KEYS = ['7', '7-aarch64', 'Debug-7', 'Official'].map(
  (name) => `RPM-GPG-KEY-CentOS-${name}`,
)

export const REDHAT_SOURCES: readonly Source[] = [
  {
    id: 'centos',
    distro: 'centos',
    protocol: 'listing',
    // Debug info of old releases vanishes from one server after the other.
    mirror: [
      'http://debuginfo.centos.org',
      'http://linuxsoft.cern.ch/centos-debuginfo',
      'http://mirror.facebook.net/centos-debuginfo',
      'http://mirrors.tencent.com/centos-debuginfo',
    ],
    keyrings: rpmKeys(
      'centos',
      'RPM-GPG-KEY-CentOS-Debug-7',
      'RPM-GPG-KEY-CentOS-7-aarch64',
      'RPM-GPG-KEY-CentOS-Official',
    ),
    fingerprints: [
      '759D690F60992D526A358CBDD0F25A3CB6792C39',
      'EF8F3CA66EFDF32B36CDADF76C7CB6EF305D49D6',
      '6341AB2753D78A78A7C27BB124C6A8A7F4A80EB5',
      '99DB70FAE1D7CE227FB6488205B555B38483C65D',
    ],
    keyUrls: CENTOS_KEYS.flatMap((name) => [
      `https://www.centos.org/keys/${name}`,
      ...collectedKeys('centos', name),
    ]),
    versions: {
      7: [{ name: '7', url: '{mirror}/7/{arch}' }],
      8: [
        { name: '8', url: '{mirror}/8/{arch}/Packages' },
        { name: '8-stream', url: '{mirror}/8-stream/{arch}/Packages' },
      ],
    },
    architectures: { ...RPM_ARCHITECTURES, ppc64le: 'ppc64le' },
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
  },
  {
    id: 'centos-stream',
    distro: 'centos',
    ...RPM_KERNELS,
    mirror: 'https://mirror.stream.centos.org',
    keyrings: rpmKeys('centos', 'RPM-GPG-KEY-CentOS-Official', 'RPM-GPG-KEY-centosofficial'),
    fingerprints: ['99DB70FAE1D7CE227FB6488205B555B38483C65D'],
    keyUrls: [
      'https://www.centos.org/keys/RPM-GPG-KEY-CentOS-Official',
      ...collectedKeys('centos', 'RPM-GPG-KEY-CentOS-Official'),
    ],
    versions: perVersion(['9', '10'], (version) => {
      const root = `{mirror}/${version}-stream/{repository}/{arch}`
      return elRepositories(`${version}-stream`, `${root}/debug/tree`, `${root}/os`)
    }),
    architectures: ALL_RPM_ARCHITECTURES,
  },
  {
    id: 'rhel',
    distro: 'rhel',
    ...RPM_KERNELS,
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
    fingerprints: [
      '567E347AD0044ADE55BA8A5F199E2F91FD431D51',
      '43A6E49C4A38F4BE9ABF2A5345689C882FA658E0',
      '7E4624258C406535D56D6F135054E4A45A6340B3',
    ],
    keyUrls: [
      'https://access.redhat.com/security/data/fd431d51.txt',
      ...collectedKeys('redhat', 'RPM-GPG-KEY-redhat8-release', 'RPM-GPG-KEY-redhat9-release'),
    ],
    versions: {
      7: [
        ...RHEL_7,
        { name: '7-rt', url: '{mirror}/dist/rhel/server/7/7Server/{arch}/rt/debug', only: X86_64 },
      ],
      ...perVersion(['8', '9', '10'], (version) => {
        const root = `{mirror}/dist/rhel${version}/${version}/{arch}/{repository}`
        return [
          ...elRepositories(version, `${root}/debug`, `${root}/os`, ['baseos', 'rt']),
          ...(version === '8' ? RHEL_8_1 : []),
        ]
      }),
    },
    architectures: ALL_RPM_ARCHITECTURES,
  },
  {
    id: 'alma',
    distro: 'almalinux',
    ...RPM_KERNELS,
    mirror: 'https://repo.almalinux.org/almalinux',
    keyrings: rpmKeys('alma', 'RPM-GPG-KEY-AlmaLinux-{version}', 'RPM-GPG-KEY-AlmaLinux'),
    fingerprints: [
      '5E9B8F5617B5066CE92057C3488FCF7C3ABB34F8',
      'BC5EDDCADF502C077F1582882AE81E8ACED7258B',
      'BF18AC2876178908D6E71267D36CB86CB86B3716',
      'EE6DB7B98F5BF5EDD9DA0DE5DEE5C11CC2A1E572',
    ],
    keyUrls: ['8', '9', '10'].flatMap((version) => [
      `https://repo.almalinux.org/almalinux/RPM-GPG-KEY-AlmaLinux-${version}`,
      ...collectedKeys('alma', `RPM-GPG-KEY-AlmaLinux-${version}`),
    ]),
    versions: perVersion(['8', '9', '10'], (version) => {
      const root = '{mirror}/{version}/{repository}'
      return elRepositories(version, `${root}/debug/{arch}`, `${root}/{arch}/os`)
    }),
    architectures: ALL_RPM_ARCHITECTURES,
  },
  {
    id: 'rocky',
    distro: 'rocky',
    ...RPM_KERNELS,
    mirror: 'https://dl.rockylinux.org/pub/rocky',
    keyrings: rpmKeys(
      'rocky',
      'RPM-GPG-KEY-Rocky-{version}',
      'RPM-GPG-KEY-rockyofficial',
      'RPM-GPG-KEY-rocky',
    ),
    fingerprints: [
      '7051C470A929F454CEBE37B715AF5DAC6D745A60',
      '21CB256AE16FC54C6E652949702D426D350D275D',
      'FC226859C0860BF0DDB95B085B106C736FEDFC85',
    ],
    keyUrls: ['rockyofficial', 'Rocky-9', 'Rocky-10'].flatMap((name) => [
      `https://dl.rockylinux.org/pub/rocky/RPM-GPG-KEY-${name}`,
      ...collectedKeys('rocky', `RPM-GPG-KEY-${name}`),
    ]),
    versions: perVersion(['8', '9', '10'], (version) => {
      const root = '{mirror}/{version}/{repository}/{arch}'
      // 8 is built for two architectures
      const limits = version === '8' ? { only: Object.keys(RPM_ARCHITECTURES) } : {}
      return elRepositories(version, `${root}/debug/tree`, `${root}/os`, undefined, limits)
    }),
    architectures: ALL_RPM_ARCHITECTURES,
  },
]
