/*
 * The facts in a tree of headers: which kernel it is of, how it was configured, and by which compiler it was built. A
 * tree without the configuration that was compiled, or of a kernel whose layouts are random, is refused.
 */
import { createHash } from 'node:crypto'
import { GeneratorError } from '../error.ts'
import { type HeaderMachine, MACHINES } from './machine.ts'
import type { HeaderTree } from './tree.ts'

const MIB = 1024 ** 2
const LIMITS = { configuration: 4 * MIB, fact: 64 * 1024, symbols: 64 * MIB } as const
/** Options of which each randomises layouts (Kconfig.hardening, scripts/gcc-plugins/Kconfig). */
const RANDOM = ['RANDSTRUCT', 'RANDSTRUCT_FULL', 'RANDSTRUCT_PERFORMANCE', 'GCC_PLUGIN_RANDSTRUCT']
/** The most options that an error names. */
const MAX_NAMED = 3

export interface HeaderFacts {
  /** `uname -r` */
  release: string
  /** `uname -v`, if the headers tell */
  unameVersion?: string
  machine: HeaderMachine
  /** hex SHA-256 of `autoconf.h` */
  configuration: string
  isBuiltIn(option: string): boolean
  /** the kernel's compiler; `version` is its first line */
  compiler: { family: 'gcc' | 'clang'; version: string }
  /** the checksums of exported symbols: hex SHA-256 of `Module.symvers`, and their number */
  symbols?: { sha256: string; count: number }
}

/**
 * Reads the facts of a tree. Errors: `invalid_headers` if there is no configuration, release or known architecture, or
 * two files contradict each other; `random_layout`.
 */
export async function readFacts(tree: HeaderTree): Promise<HeaderFacts> {
  const text = await tree.read('include/generated/autoconf.h', LIMITS.configuration)
  if (text === undefined)
    throw invalid('they have no include/generated/autoconf.h, which has the configuration')
  const options = optionsIn(text)
  await checkAgainstMake(tree, options)
  const isBuiltIn = (option: string) => options.get(option) === '1'
  const random = RANDOM.find(isBuiltIn)
  if (random !== undefined)
    throw new GeneratorError(
      'random_layout',
      `the kernel was built with CONFIG_${random}: its layouts are random, and headers do not tell them`,
    )
  const machine = MACHINES.find(
    ({ needs, lacks = [] }) => needs.every(isBuiltIn) && !lacks.some(isBuiltIn),
  )
  if (!machine) throw invalid('no architecture that is known has their configuration')
  const family = isBuiltIn('CC_IS_CLANG') ? 'clang' : 'gcc'
  const version = /^"([\x20-\x7e]{1,200})"$/.exec(options.get('CC_VERSION_TEXT') ?? '')?.[1] ?? ''
  const unameVersion = await unameVersionOf(tree)
  const symbols = await symbolsOf(tree)
  return {
    release: await releaseOf(tree),
    ...(unameVersion !== undefined && { unameVersion }),
    machine,
    configuration: createHash('sha256').update(text, 'latin1').digest('hex'),
    isBuiltIn,
    compiler: { family, version },
    ...(symbols && { symbols }),
  }
}

/** The options that a configuration defines: `1` for y, `m` for a module, otherwise the text of the value. */
export function optionsIn(text: string): Map<string, string> {
  const options = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, name, value = ''] = /^#define CONFIG_(\w{1,200}) (.*)$/.exec(line) ?? []
    if (name === undefined) continue
    if (value === '1' && name.endsWith('_MODULE')) options.set(name.slice(0, -7), 'm')
    else options.set(name, value.trim())
  }
  return options
}

/**
 * Checks that the configuration is the one that the kernel's make used, where the headers have both. They are written
 * together (scripts/kconfig), so a difference says that one was exchanged. Errors: `invalid_headers`.
 */
async function checkAgainstMake(
  tree: HeaderTree,
  options: ReadonlyMap<string, string>,
): Promise<void> {
  const text = await tree.read('include/config/auto.conf', LIMITS.configuration)
  if (text === undefined) return
  const other = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, name, value = ''] = /^CONFIG_(\w{1,200})=(y|m|1)$/.exec(line) ?? []
    if (name !== undefined) other.set(name, value === 'm' ? 'm' : '1') // y and 1 are one in autoconf.h
  }
  const own = [...options].filter(([, value]) => value === '1' || value === 'm')
  const different = [
    ...own.filter(([name, value]) => other.get(name) !== value),
    ...[...other].filter(([name]) => !options.has(name)),
  ]
  if (different.length === 0) return
  const named = different.slice(0, MAX_NAMED).map(([name]) => `CONFIG_${name}`)
  throw invalid(
    `autoconf.h and auto.conf are of different configurations: ${different.length} options differ, such as ${named.join(', ')}`,
  )
}

async function releaseOf(tree: HeaderTree): Promise<string> {
  const generated = await macroIn(tree, 'include/generated/utsrelease.h', 'UTS_RELEASE')
  // Debian's has no ABI name
  const configured = (await tree.read('include/config/kernel.release', LIMITS.fact))?.trim()
  const release = generated ?? configured
  if (release === undefined || !/^[\x21-\x7e]{1,64}$/.test(release))
    throw invalid('they do not tell the release of their kernel')
  return release
}

/** `uname -v`; before 6.1 it is in compile.h (scripts/mkcompile_h). */
async function unameVersionOf(tree: HeaderTree): Promise<string | undefined> {
  const file = await macroIn(tree, 'include/generated/utsversion.h', 'UTS_VERSION')
  return file ?? (await macroIn(tree, 'include/generated/compile.h', 'UTS_VERSION'))
}

async function macroIn(tree: HeaderTree, path: string, macro: string): Promise<string | undefined> {
  const text = await tree.read(path, LIMITS.fact)
  if (text === undefined) return undefined
  return new RegExp(`^#define ${macro}[ \\t]{1,16}"([\\x20-\\x7e]{1,256})"$`, 'm').exec(text)?.[1]
}

async function symbolsOf(tree: HeaderTree): Promise<HeaderFacts['symbols']> {
  const text = await tree.read('Module.symvers', LIMITS.symbols)
  if (text === undefined) return undefined
  const lines = text.split('\n').filter((line) => line !== '')
  const strange = lines.find((line) => !/^0x[0-9a-f]{8,16}\t[^\t]{1,512}\t/.test(line))
  if (strange !== undefined)
    throw invalid(
      `Module.symvers has a line of another form: ${JSON.stringify(strange.slice(0, 60))}`,
    )
  return {
    sha256: createHash('sha256').update(text, 'latin1').digest('hex'),
    count: lines.length,
  }
}

const invalid = (why: string): GeneratorError =>
  new GeneratorError('invalid_headers', `the kernel headers are not complete: ${why}`)
