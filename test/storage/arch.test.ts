// Architectures under all their names: what uname, Debian, RPM and Go call them, and btfhub-archive's directories.
import t from 'tap'
import { archiveArch, canonicalArch } from '../../storage/index.ts'

/** By `uname -m` name: every other name it goes by. */
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

t.test('every alias is the name that uname -m gives', async (t) => {
  for (const [name, aliases] of Object.entries(ALIASES))
    for (const alias of [name, ...aliases]) {
      t.equal(canonicalArch(alias), name, alias)
      t.equal(canonicalArch(alias.toUpperCase()), name, alias.toUpperCase())
    }
})

t.test('one that nobody knows stays as it is', async (t) => {
  for (const name of ['sparc64', 'Alpha', '', 'amd64 ', 'constructor', '__proto__', 'toString']) {
    t.equal(canonicalArch(name), name)
    t.equal(archiveArch(name), name)
  }
})

t.test("btfhub-archive's directories", async (t) => {
  for (const name of ['x86_64', 'amd64']) t.equal(archiveArch(name), 'x86_64')
  for (const name of ['aarch64', 'arm64', 'ARM64']) t.equal(archiveArch(name), 'arm64')
  t.equal(archiveArch('i386'), 'i686')
})
