/*
 * The names of architectures. The catalog keeps the `uname -m` name. Distributions, archives and people use other
 * names, and everything that takes an architecture as input maps it through this table.
 */

interface Architecture {
  /** other names, as Debian, RPM and Go use them */
  readonly aliases: readonly string[]
  /** its directory in btfhub-archive, if that is not the `uname -m` name */
  readonly archive?: string
}

/** By `uname -m` name. Debian's armel kernels run on ARMv5 and ARMv6; the older name stands for both. */
const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  x86_64: { aliases: ['amd64', 'x86-64', 'x64'] },
  aarch64: { aliases: ['arm64'], archive: 'arm64' },
  i686: { aliases: ['i386', 'i486', 'i586', 'x86', '386'] },
  armv7l: { aliases: ['armhf', 'armv7', 'armv7hl'] },
  armv5tel: { aliases: ['armel', 'armv6l'] },
  ppc64le: { aliases: ['ppc64el', 'powerpc64le'] },
  s390x: { aliases: [] },
  riscv64: { aliases: [] },
  loongarch64: { aliases: ['loong64'] },
  mips: { aliases: ['mipsel'] },
  mips64: { aliases: ['mips64el', 'mips64r6el'] },
}

const BY_NAME = new Map(
  Object.entries(ARCHITECTURES).flatMap(([name, { aliases }]) =>
    [name, ...aliases].map((alias) => [alias, name] as const),
  ),
)

/** Maps any name of an architecture to its `uname -m` name. An unknown name is returned unchanged. */
export function canonicalArch(name: string): string {
  return BY_NAME.get(name.toLowerCase()) ?? name
}

/** Maps any name of an architecture to its directory in btfhub-archive: `x86_64`, `arm64`. */
export function archiveArch(name: string): string {
  const canonical = canonicalArch(name)
  return ARCHITECTURES[canonical]?.archive ?? canonical
}
