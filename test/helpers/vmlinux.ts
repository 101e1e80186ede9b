/* Small vmlinux images for the generator: real ELF with real DWARF by clang. Each takes a tenth of a second. */
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type BtfType, encodeBtf, readBtf } from '../../bpf/index.ts'

export const RELEASE = '6.1.0-9-test'
export const BUILD_ID = '0123456789abcdef0123456789abcdef01234567'

const SOURCE = join(import.meta.dirname, 'vmlinux.c')
const LAYOUT = join(import.meta.dirname, '../fixtures/bpf/vmlinux.lds')

export interface ImageOptions {
  release?: string
  /** hex */
  buildId?: string
  /** clang's machine name */
  machine?: 'i386' | 'mips' | 'x86_64' | 'aarch64' | 'arm' | 'powerpc64le'
  /** with DWARF, like images in packages with debug info */
  debug?: boolean
  /** macros that replace those of a valid `task_struct` */
  defines?: Readonly<Record<string, string | number>>
  /** with its own BTF */
  btf?: boolean
  /** with a `.BTF.inline` over that BTF, which says that calls of these functions are inlined */
  inline?: readonly string[]
  /** assembler text that is linked in, with more DWARF */
  more?: string
}

/** Writes an image to `path`. */
export function makeVmlinux(path: string, options: ImageOptions = {}): void {
  const { release = RELEASE, machine = 'i386', debug = true, defines = {}, more = '' } = options
  const { btf = false, buildId = BUILD_ID, inline } = options
  const all = {
    RELEASE: `"${release}"`,
    TGID: 'tgid',
    STACK: 256,
    VERSION: '"6.1.9-1"',
    ...defines,
  }
  const target = `--target=${machine}-linux-gnu`
  const objects = [`${path}.c.o`, `${path}.more.o`]
  const compile = [target, '-O2', '-ffreestanding', '-fno-pic', '-fdebug-compilation-dir=.']
  const macros = Object.entries(all).map(([name, value]) => `-D${name}=${value}`)
  const debugInfo = debug ? ['-g'] : []
  execFileSync('clang', [...compile, ...macros, ...debugInfo, '-c', SOURCE, '-o', objects[0]!])
  execFileSync('clang', [target, '-x', 'assembler', '-c', '-', '-o', objects[1]!], { input: more })
  const link = ['-T', LAYOUT, '--entry=start_kernel', '-z', 'noseparate-code', '-n']
  execFileSync('ld.lld', [...link, `--build-id=0x${buildId}`, ...objects, '-o', path])
  for (const object of objects) rmSync(object)
  if (btf) addBtf(path)
  if (inline) addInlineBtf(path, inline)
}

/** Writes a module with debug info to `path`; `name` is the name of its own struct. */
export function makeModule(
  path: string,
  name: string,
  { machine = 'i386', debug = true }: Pick<ImageOptions, 'machine' | 'debug'> = {},
): void {
  const target = `--target=${machine}-linux-gnu`
  const compile = [target, '-O2', '-ffreestanding', '-fno-pic', '-fdebug-compilation-dir=.']
  const debugInfo = debug ? ['-g'] : []
  const source = join(import.meta.dirname, 'module.c')
  execFileSync('clang', [...compile, ...debugInfo, `-DMODULE=${name}`, '-c', source, '-o', path])
}

/** Adds the BTF made from its DWARF to an image, as the kernel's build does. */
function addBtf(path: string): void {
  const btf = `${path}.btf`
  execFileSync('pahole', ['--btf_gen_floats', `--btf_encode_detached=${btf}`, path])
  execFileSync('llvm-objcopy', ['--add-section', `.BTF=${btf}`, path])
  rmSync(btf)
}

function addInlineBtf(path: string, names: readonly string[]): void {
  const base = readBtf(readFileSync(path))
  const [first, proto] = [base.endId + 1, base.endId]
  const section = first + names.length
  const types: BtfType[] = [
    { kind: 'FUNC_PROTO', id: proto, name: '', type: 0, parameters: [] },
    ...names.map((name, i): BtfType => {
      return { kind: 'FUNC', id: first + i, name, type: proto, linkage: 'static' }
    }),
    {
      kind: 'LOCSEC',
      id: section,
      name: 'inline.text',
      locations: names.map((_, i) => ({ func: first + i, proto: section + 1, offset: i * 8 })),
    },
    { kind: 'LOC_PROTO', id: section + 1, name: '', places: [] },
  ]
  const inline = `${path}.inline`
  writeFileSync(inline, encodeBtf(types, { base, byteOrder: base.byteOrder }))
  execFileSync('llvm-objcopy', ['--add-section', `.BTF.inline=${inline}`, path])
  rmSync(inline)
}

/** An image without debug info and symbols, as in a boot image, but with its BTF and these sections. */
export function stripped(
  path: string,
  keep: readonly string[] = [],
  remove: readonly string[] = [],
): Buffer {
  const copy = `${path}.stripped`
  const kept = ['.BTF', ...keep].filter((name) => !remove.includes(name))
  const sections = [
    ...kept.map((name) => `--keep-section=${name}`),
    ...remove.map((name) => `--remove-section=${name}`),
  ]
  execFileSync('llvm-objcopy', ['--strip-all', ...sections, path, copy])
  const bytes = readFileSync(copy)
  rmSync(copy)
  return bytes
}

/** DWARF of a function with deeply nested lexical blocks: a recursive reader runs out of stack. */
export function nestedBlocks(depth: number): string {
  const opened = `.fill ${depth}, 1, 3`
  const closed = `.fill ${depth + 1}, 1, 0`
  return compileUnit(['.byte 2', '.asciz "deep"', opened, closed])
}

/** DWARF of a function with `count` lexical blocks side by side: a reader keeps all of them, BTF has none. */
export function manyBlocks(count: number): string {
  return compileUnit(['.byte 2', '.asciz "wide"', `.fill ${count}, 2, 3`, '.byte 0'])
}

/** DWARF of `count` structs with different names: some bytes each here, hundreds in a reader. */
export function manyStructs(count: number): string {
  return structsNamed(Array.from({ length: count }, (_, i) => `s${i}`))
}

/** DWARF of structs of 4 bytes without members, with these names. */
export function structsNamed(names: readonly string[]): string {
  return compileUnit(names.map((name) => `.byte 4; .asciz "${name}"; .byte 4`))
}

/** A compile unit of DWARF 4 with these entries, and the abbreviations that they use. */
function compileUnit(entries: readonly string[]): string {
  return `
    .section .debug_abbrev, "", @progbits
    abbreviations:
    .byte 1, 0x11, 1, 0x25, 8, 0x13, 5, 3, 8, 0, 0 // DW_TAG_compile_unit: producer, language, name
    .byte 2, 0x2e, 1, 3, 8, 0, 0                   // DW_TAG_subprogram: name
    .byte 3, 0x0b, 1, 0, 0                         // DW_TAG_lexical_block
    .byte 4, 0x13, 0, 3, 8, 0x0b, 0x0b, 0, 0       // DW_TAG_structure_type: name, size
    .byte 0
    .section .debug_info, "", @progbits
    .long end - start
    start: .short 4
    .long abbreviations
    .byte 4
    .byte 1
    .asciz "assembler"
    .short 12 // DW_LANG_C99
    .asciz "more.c"
    ${entries.join('\n')}
    .byte 0
    end:
  `
}
