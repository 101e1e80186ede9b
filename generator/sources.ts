import { parseSource, type Source } from './source.ts'

const debian = {
  id: 'debian',
  distro: 'debian',
  protocol: 'apt',
  keyring: '/usr/share/keyrings/debian-archive-keyring.gpg',
  component: 'main',
  versions: {
    11: [
      { repository: 'debian', suite: 'bullseye' },
      { repository: 'debian-security', suite: 'bullseye-security' },
    ],
    12: [
      { repository: 'debian', suite: 'bookworm' },
      { repository: 'debian', suite: 'bookworm-updates' },
      { repository: 'debian-security', suite: 'bookworm-security' },
    ],
    13: [
      { repository: 'debian', suite: 'trixie' },
      { repository: 'debian', suite: 'trixie-updates' },
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
  packages: '^linux-image-([0-9]+[.][0-9].*)-dbg$',
  vmlinux: ['usr/lib/debug/boot/vmlinux-{release}', 'usr/lib/debug/lib/modules/{release}/vmlinux'],
}

/** All sources that btfmill knows, by id. */
export const SOURCES: ReadonlyMap<string, Source> = new Map(
  [debian].map((source) => [source.id, parseSource(source)]),
)
