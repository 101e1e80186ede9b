/* Little vmlinux images for the generator, real ELF with real DWARF by clang, in a tenth of a second each. */
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

export const RELEASE = '6.1.0-9-test'
export const BUILD_ID = '0123456789abcdef0123456789abcdef01234567'

const SOURCE = join(import.meta.dirname, 'vmlinux.c')
const LAYOUT = join(import.meta.dirname, '../fixtures/bpf/vmlinux.lds')

export interface ImageOptions {
  release?: string
  /** hex */
  buildId?: string
  /** clang's name of the machine */
  machine?: 'i386' | 'mips' | 'x86_64' | 'aarch64'
  /** with DWARF, as images of packages with debug info are */
  debug?: boolean
  /** defines over those that make a sound `task_struct` */
  defines?: Readonly<Record<string, string | number>>
  /** with BTF of its own */
  btf?: boolean
  /** assembler text that is linked in: more DWARF */
  more?: string
}

/** Writes an image to `path`. */
export function makeVmlinux(path: string, options: ImageOptions = {}): void {
  const { release = RELEASE, machine = 'i386', debug = true, defines = {}, more = '' } = options
  const { btf = false, buildId = BUILD_ID } = options
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
  execFileSync('clang', [
    ...[...compile, ...macros, ...(debug ? ['-g'] : [])],
    ...['-c', SOURCE, '-o', objects[0]!],
  ])
  execFileSync('clang', [target, '-x', 'assembler', '-c', '-', '-o', objects[1]!], { input: more })
  execFileSync('ld.lld', [
    ...[
      '-T',
      LAYOUT,
      '--entry=start_kernel',
      `--build-id=0x${buildId}`,
      '-z',
      'noseparate-code',
      '-n',
    ],
    ...[...objects, '-o', path],
  ])
  for (const object of objects) rmSync(object)
  if (btf) addBtf(path)
}

/** Writes a module with debug info to `path`, whose own struct has that name. */
export function makeModule(
  path: string,
  name: string,
  { machine = 'i386', debug = true }: Pick<ImageOptions, 'machine' | 'debug'> = {},
): void {
  const compile = [`--target=${machine}-linux-gnu`, '-O2', '-ffreestanding', '-fno-pic']
  const source = join(import.meta.dirname, 'module.c')
  execFileSync('clang', [
    ...[...compile, '-fdebug-compilation-dir=.', ...(debug ? ['-g'] : [])],
    ...[`-DMODULE=${name}`, '-c', source, '-o', path],
  ])
}

/** Gives an image the BTF that its DWARF makes, as the kernel's own build does. */
function addBtf(path: string): void {
  const btf = `${path}.btf`
  execFileSync('pahole', ['--btf_gen_floats', `--btf_encode_detached=${btf}`, path])
  execFileSync('llvm-objcopy', ['--add-section', `.BTF=${btf}`, path])
  rmSync(btf)
}

/** What goes into an image for boot loaders: without debug info and symbols. */
export function stripped(path: string): Buffer {
  const copy = `${path}.stripped`
  execFileSync('llvm-objcopy', ['--strip-all', '--keep-section=.BTF', path, copy])
  const bytes = readFileSync(copy)
  rmSync(copy)
  return bytes
}

/** DWARF of a function whose lexical blocks are nested so deep that a reader that recurses runs out of stack. */
export function nestedBlocks(depth: number): string {
  const opened = `.fill ${depth}, 1, 3`
  const closed = `.fill ${depth + 1}, 1, 0`
  return compileUnit(['.byte 2', '.asciz "deep"', opened, closed])
}

/** DWARF of a function with so many lexical blocks beside each other: a reader holds all of them, BTF has none. */
export function manyBlocks(count: number): string {
  return compileUnit(['.byte 2', '.asciz "wide"', `.fill ${count}, 2, 3`, '.byte 0'])
}

/** DWARF of so many structs, each with another name: what takes some bytes each here takes a reader hundreds. */
export function manyStructs(count: number): string {
  return compileUnit(Array.from({ length: count }, (_, i) => `.byte 4; .asciz "s${i}"; .byte 4`))
}

/** A compile unit of DWARF 4 around these entries, with the abbreviations of those above. */
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
