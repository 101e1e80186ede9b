/*
 * Describes a vmlinux: its build-id, `uname -r`, `uname -v`, machine, and whether it has BTF and DWARF. At most a few
 * megabytes are read, however large it is.
 */

import { type ByteOrder, type ByteSource, decodeLatin1, encodeText, findAll } from './bytes.ts'
import { type Elf, type ElfSection, openElf } from './elf.ts'
import { INLINE_SECTION } from './inline-sites.ts'
import { buildIdOf } from './note.ts'

export interface Vmlinux {
  readonly byteOrder: ByteOrder
  /** bytes */
  readonly pointerSize: 4 | 8
  /** `e_machine` */
  readonly machine: number
  /** `uname -m`, where machine and byte order determine it: an ARM image may be armv5tel, armv6l or armv7l */
  readonly arch?: string
  /** the GNU build-id in hex */
  readonly buildId?: string
  /** `uname -r`; like `unameVersion` absent if the file has debug info only, without data */
  readonly release?: string
  /** `uname -v` */
  readonly unameVersion?: string
  /** the section `.BTF`, if there is one */
  readonly ownBtf?: Uint8Array
  /** the section `.BTF.base`: the distilled base of a module that was built outside the kernel's tree */
  readonly distilledBase?: Uint8Array
  /**
   * the section `.BTF.link` of a kernel whose BTF is in the module btf_vmlinux (CONFIG_DEBUG_INFO_BTF=m): it has the
   * SHA-256 of that BTF
   */
  readonly btfLink?: Uint8Array
  readonly hasDwarf: boolean
  /** it has a section `.BTF.inline`, which lists inlined calls */
  readonly hasInlineBtf?: boolean
}

/** Bytes of `.BTF.link` that are read: a name, a size and a digest have fewer. */
const MAX_LINK = 4096

/** Describes a vmlinux. Errors: `unsupported` for a compressed `.BTF`; those of `openElf`. */
export function describeVmlinux(source: ByteSource): Vmlinux {
  const elf = openElf(source)
  const arch = machineName(elf)
  const notes = elf.section('.notes') ?? elf.section('.note.gnu.build-id')
  const buildId = notes && buildIdOf(elf.read(notes), elf.byteOrder)
  const banner = findBanner(elf)
  const btf = elf.section('.BTF')
  const distilled = elf.section('.BTF.base')
  const link = elf.section('.BTF.link')
  return {
    byteOrder: elf.byteOrder,
    pointerSize: elf.bits === 64 ? 8 : 4,
    machine: elf.machine,
    ...(arch && { arch }),
    ...(buildId && { buildId }),
    ...banner,
    ...(btf && { ownBtf: elf.read(btf) }),
    ...(distilled && { distilledBase: elf.read(distilled) }),
    ...(link && hasBytes(link) && { btfLink: elf.read(link, 0, Math.min(link.size, MAX_LINK)) }),
    ...(elf.section(INLINE_SECTION) && { hasInlineBtf: true }),
    hasDwarf: ['.debug_info', '.zdebug_info'].some((name) => (elf.section(name)?.size ?? 0) > 0),
  }
}

/** `uname -m` by `e_machine` (include/uapi/linux/elf-em.h), then by word size and byte order. */
const MACHINES: Readonly<Record<number, Readonly<Record<string, string>>>> = {
  2: { '32 big': 'sparc' },
  3: { '32 little': 'i686' },
  4: { '32 big': 'm68k' },
  8: {
    '32 big': 'mips',
    '32 little': 'mips',
    '64 big': 'mips64',
    '64 little': 'mips64',
  },
  15: { '32 big': 'parisc', '64 big': 'parisc64' },
  20: { '32 big': 'ppc', '32 little': 'ppcle' },
  21: { '64 big': 'ppc64', '64 little': 'ppc64le' },
  22: { '32 big': 's390', '64 big': 's390x' },
  43: { '64 big': 'sparc64' },
  62: { '64 little': 'x86_64' },
  183: { '64 big': 'aarch64_be', '64 little': 'aarch64' },
  243: { '32 little': 'riscv32', '64 little': 'riscv64' },
  258: { '32 little': 'loongarch32', '64 little': 'loongarch64' },
}

function machineName(elf: Elf): string | undefined {
  return MACHINES[elf.machine]?.[`${elf.bits} ${elf.byteOrder}`]
}

const BANNER = encodeText('Linux version ')
const BANNER_LIMIT = 1024
/** Candidates that are tried; an image has two or three. */
const MAX_BANNERS = 64

/**
 * Finds `linux_banner` by its symbol, or without a symbol table by a search of `.rodata`. That section also holds the
 * banner's format (`Linux version %s …`), and may hold a banner from before the build number was known (`… # SMP`), so
 * only text that parses counts.
 */
function findBanner(elf: Elf): { release: string; unameVersion: string } | undefined {
  const symbol = elf.symbol('linux_banner')
  const section = symbol && elf.sections[symbol.section]
  if (section && symbol.value >= section.address && hasBytes(section)) {
    return parseBanner(textAt(elf, section, Number(symbol.value - section.address)))
  }
  const rodata = elf.section('.rodata')
  if (!rodata || !hasBytes(rodata)) return undefined
  for (const at of elf.search(rodata, BANNER).take(MAX_BANNERS)) {
    const banner = parseBanner(textAt(elf, rodata, at))
    if (banner) return banner
  }
  return undefined
}

function hasBytes(section: ElfSection): boolean {
  return section.type !== 8 && !section.compressed
}

function textAt(elf: Elf, section: ElfSection, offset: number): string {
  const length = Math.min(BANNER_LIMIT, section.size - offset)
  if (length <= 0) return ''
  const text = decodeLatin1(elf.read(section, offset, length))
  return text.split('\0', 1)[0] ?? ''
}

/** Finds the banner anywhere in the bytes. */
export function findBannerIn(
  bytes: Uint8Array,
): { release: string; unameVersion: string } | undefined {
  for (const at of findAll(bytes, BANNER).take(MAX_BANNERS)) {
    const [line] = decodeLatin1(bytes.subarray(at, at + BANNER_LIMIT)).split('\0', 1)
    const banner = parseBanner(line ?? '')
    if (banner) return banner
  }
  return undefined
}

/**
 * Parses "Linux version <uname -r> (<by>@<host>) (<compiler>) <uname -v>\n" (init/version.c); `uname -v` begins with the
 * build number (scripts/mkcompile_h, init/Makefile).
 */
function parseBanner(text: string): { release: string; unameVersion: string } | undefined {
  const match = /^Linux version (\S+) \(.*?\) (#\S.*?)\n?$/.exec(text)
  return match ? { release: match[1]!, unameVersion: match[2]! } : undefined
}
