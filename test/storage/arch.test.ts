// Tests the table of architecture names: those of uname, Debian, RPM and Go, and btfhub-archive's directories.
import t from 'tap'
import { archiveArch, canonicalArch } from '../../storage/index.ts'

/** All other names of an architecture, by `uname -m` name. */
const ALIASES: Record<string, string[]> = {
  x86_64: ['amd64', 'x64'],
  aarch64: ['arm64'],
  i686: ['i386', 'i486', 'i586', 'x86', '386'],
  armv7l: ['armhf', 'armv7', 'armv7hl'],
  armv5tel: ['armel', 'armv6l'],
  ppc64le: ['ppc64el', 'powerpc64le'],
  s390x: [],
  riscv64: [],
  loongarch64: ['loong64'],
  mips: ['mipsel'],
  mips64: ['mips64el', 'mips64r6el'],
}

t.test('canonicalArch maps every alias, in any case, to the uname -m name', async (t) => {
  for (const [name, aliases] of Object.entries(ALIASES))
    for (const alias of [name, ...aliases]) {
      t.equal(canonicalArch(alias), name, alias)
      t.equal(canonicalArch(alias.toUpperCase()), name, alias.toUpperCase())
    }
})

t.test('canonicalArch and archiveArch return an unknown name unchanged', async (t) => {
  for (const name of ['sparc64', 'Alpha', '', 'amd64 ', 'constructor', '__proto__', 'toString']) {
    t.equal(canonicalArch(name), name)
    t.equal(archiveArch(name), name)
  }
})

t.test('archiveArch gives the directory name of btfhub-archive', async (t) => {
  for (const name of ['x86_64', 'amd64']) t.equal(archiveArch(name), 'x86_64')
  for (const name of ['aarch64', 'arm64', 'ARM64']) t.equal(archiveArch(name), 'arm64')
  t.equal(archiveArch('i386'), 'i686')
})
