/* The sources that btfmill knows, one row each. */
import { parseSource, type Source } from './source.ts'

const DEBIAN_KEYRINGS = ['/usr/share/keyrings/debian-archive-keyring.gpg']

const ROWS: readonly Source[] = [
  {
    id: 'debian',
    distro: 'debian',
    protocol: 'apt',
    keyrings: DEBIAN_KEYRINGS,
    components: ['main'],
    versions: {
      11: [
        { repository: 'debian', suite: 'bullseye' },
        { repository: 'debian', suite: 'bullseye-updates' },
        { repository: 'debian-security', suite: 'bullseye-security' },
      ],
      12: [
        { repository: 'debian', suite: 'bookworm' },
        { repository: 'debian', suite: 'bookworm-updates' },
        { repository: 'debian', suite: 'bookworm-backports' },
        { repository: 'debian-security', suite: 'bookworm-security' },
      ],
      13: [
        { repository: 'debian', suite: 'trixie' },
        { repository: 'debian', suite: 'trixie-updates' },
        { repository: 'debian', suite: 'trixie-backports' },
        { repository: 'debian-security', suite: 'trixie-security' },
      ],
      sid: [{ repository: 'debian', suite: 'sid' }],
    },
    architectures: {
      x86_64: 'amd64',
      aarch64: 'arm64',
      i686: 'i386',
      armv7l: 'armhf',
      armv5tel: 'armel',
      ppc64le: 'ppc64el',
      s390x: 's390x',
      mips: 'mipsel',
      mips64: 'mips64el',
      riscv64: 'riscv64',
      loongarch64: 'loong64',
    },
    // metapackages (linux-image-amd64-dbg, linux-image-686-pae-dbg) have no version there
    packages: [{ name: 'linux-image-(?<uname>[0-9]+[.][0-9].*)-dbg', release: '{uname}' }],
    vmlinux: [
      'usr/lib/debug/boot/vmlinux-{release}',
      'usr/lib/debug/lib/modules/{release}/vmlinux',
    ],
  },
]

/** All sources that btfmill knows, by id. */
export const SOURCES: ReadonlyMap<string, Source> = new Map(
  ROWS.map((source) => [source.id, parseSource(source)]),
)
