/*
 * Fedora: the current releases, and the archive of those at their end of life. ppc64le and s390x are in a tree of their
 * own (`fedora-secondary`). Kernels from 32 on have BTF.
 */
import {
  ALL_RPM_ARCHITECTURES,
  collectedKeys,
  debugAndImages,
  perVersion,
  RPM_KERNELS,
  range,
  rpmKeys,
  X86_64,
} from './conventions.ts'
import type { Source } from './source.ts'

/** The trees of releases, and their architectures. */
const TREES = [
  { tree: 'fedora/linux', only: ['x86_64', 'aarch64'] },
  { tree: 'fedora-secondary', only: ['ppc64le', 's390x'] },
]

/** The path in a repository of the packages whose names start with `k`. */
const LISTING = 'Packages/k'

/** A release and its updates. In the archive, only the packages of the kernel are listed. */
const fedoraRepositories = (version: string, path = '') =>
  TREES.flatMap(({ tree, only }) => {
    const release = `{mirror}/${tree}/releases/{version}/Everything/{arch}`
    const updates = `{mirror}/${tree}/updates/{version}/Everything/{arch}`
    return [
      ...debugAndImages(version, `${release}/debug/tree${path}`, `${release}/os${path}`, { only }),
      ...debugAndImages(`${version}-updates`, `${updates}/debug${path}`, `${updates}${path}`, {
        only,
      }),
    ]
  })

/** The fingerprints of each release's key. */
const KEYS = {
  24: '5048BDBBA5E776E547B09CCC73BDE98381B46521',
  25: 'C437DCCD558A66A37D6F43724089D8F2FDB19C98',
  26: 'E641850B77DF435378D1D7E2812A6B4B64DAB85D',
  27: '860E19B0AFA800A1751881A6F55E7430F5282EE4',
  28: '128CF232A9371991C8A65695E08E7E629DB62FB1',
  29: '5A03B4DD8254ECA02FDA1637A20AA56B429476B4',
  30: 'F1D8EC98F241AAF20DF69420EF3C111FCFC659B9',
  31: '7D22D5867F2A4236474BF7B850CB390B3C3359C4',
  32: '97A1AE57C3A2372CCA3A4ABA6C13026D12C944D0',
  33: '963A2BEB02009608FE67EA4249FD77499570FF31',
  34: '8C5BA6990BDB26E19F2A1A801161AE6945719A39',
  35: '787EA6AE1147EEE56C40B30CDB4639719867C58F',
  36: '53DED2CB922D8B8D9E63FD18999F7CBF38AB71F4',
  37: 'ACB5EE4E831C74BB7C168D27F55AD3FB5323552A',
  38: '6A51BBABBA3D5467B6171221809A8D7CEB10B464',
  39: 'E8F23996F23218640CB44CBE75CF5AC418B8E74C',
  40: '115DF9AEF857853EE8445D0A0727707EA15B79CC',
  41: '466CF2D8B60BC3057AA9453ED0622462E99D6AD1',
  42: 'B0F4950458F69E1150C6C5EDC8AC4916105EF944',
  43: 'C6E7F081CF80E13146676E88829B606631645531',
  44: '36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6',
  45: '4F50A6114CD5C6976A7F1179655A4B02F577861E',
}
const keysOf = (versions: readonly string[]) =>
  Object.entries(KEYS).flatMap(([version, key]) => (versions.includes(version) ? [key] : []))

/** The addresses of releases' keys: in the sources of the package that installs them. */
const keyUrlsOf = (versions: readonly string[]) =>
  versions.flatMap((version) => {
    const name = `RPM-GPG-KEY-fedora-${version}-primary`
    return [
      `https://src.fedoraproject.org/rpms/fedora-repos/raw/f${version}/f/${name}`,
      ...collectedKeys('fedora', name),
    ]
  })

const CURRENT = range(43, 45)
const ARCHIVED = range(24, 42)

export const FEDORA_SOURCES: readonly Source[] = [
  {
    id: 'fedora',
    distro: 'fedora',
    ...RPM_KERNELS,
    mirror: 'https://dl.fedoraproject.org/pub',
    keyrings: rpmKeys('fedora', 'RPM-GPG-KEY-fedora-{version}-primary'),
    fingerprints: keysOf(CURRENT),
    keyUrls: ['https://fedoraproject.org/fedora.gpg', ...keyUrlsOf(CURRENT)],
    versions: perVersion(CURRENT, (version) => fedoraRepositories(version)),
    architectures: ALL_RPM_ARCHITECTURES,
  },
  {
    id: 'fedora-archive',
    distro: 'fedora',
    ...RPM_KERNELS,
    protocol: 'listing',
    mirror: [
      'https://archives.fedoraproject.org/pub/archive',
      'https://dl.fedoraproject.org/pub/archive',
    ],
    keyrings: rpmKeys(
      'fedora',
      'RPM-GPG-KEY-fedora-{version}-primary',
      'RPM-GPG-KEY-fedora-{version}-x86_64',
    ),
    fingerprints: keysOf(ARCHIVED),
    keyUrls: keyUrlsOf(ARCHIVED),
    versions: {
      // Older releases have other paths.
      ...perVersion(range(24, 27), (version) => [
        {
          name: version,
          url: `{mirror}/fedora/linux/releases/{version}/Everything/{arch}/debug/tree/${LISTING}`,
          only: X86_64,
        },
        {
          name: `${version}-updates`,
          url: `{mirror}/fedora/linux/updates/{version}/{arch}/debug/${version === '24' ? 'k' : LISTING}`,
          only: X86_64,
        },
      ]),
      ...perVersion(range(28, 42), (version) => fedoraRepositories(version, `/${LISTING}`)),
    },
    architectures: ALL_RPM_ARCHITECTURES,
  },
]
