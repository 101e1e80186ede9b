/*
 * Compilers for the headers of a kernel: the one that built the kernel, as far as the machine has it, otherwise another
 * one for its architecture. The layout of a type is a matter of the architecture's ABI, not of the compiler, as long as
 * it takes all options that the kernel's build gives; a compiler that refuses one of them is not used.
 */
import { accessSync, constants } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GeneratorError } from '../error.ts'
import { runChild } from '../subprocess.ts'
import type { HeaderFacts } from './configuration.ts'
import { COMMON_OPTIONS, type HeaderMachine } from './machine.ts'
import type { Sandbox } from './sandbox.ts'

/** Directories with compilers, which the sandbox has, too. */
const DIRECTORIES = ['/usr/local/bin', '/usr/bin', '/bin']
/** Seconds for a question to a compiler. */
const ASKING = 30
/** Major versions that are looked for by name, the newest first. */
const VERSIONS = Array.from({ length: 20 }, (_, index) => 24 - index)

export interface HeaderCompiler {
  name: 'gcc' | 'clang'
  version: string
  /** the target of the code, `x86_64-linux-gnu` */
  target: string
  path: string
  /** its own headers, `stdarg.h` and the like */
  include: string
  /** options that the machine and this compiler need */
  options: readonly string[]
}

/** A compiler that may be installed. */
interface CompilerChoice {
  name: HeaderCompiler['name']
  program: string
}

/** The compilers for a machine: first the kernel's own family, and in it the kernel's own version. */
export function choicesFor({
  machine,
  compiler: { family, version },
}: Pick<HeaderFacts, 'machine' | 'compiler'>): CompilerChoice[] {
  const [, major] = / (\d{1,3})\.\d/.exec(version) ?? []
  const gcc = (name: string) => ({ name: 'gcc' as const, program: name })
  const clang = (name: string) => ({ name: 'clang' as const, program: name })
  const numbered = (name: string) => VERSIONS.map((number) => `${name}-${number}`)
  const cross = `${machine.target}-gcc`
  const own = family === 'gcc' && major !== undefined ? [`${cross}-${major}`, `gcc-${major}`] : []
  const gccs = [...own, cross, 'gcc', ...numbered(cross), ...numbered('gcc')].map(gcc)
  const ownClang = family === 'clang' && major !== undefined ? [`clang-${major}`] : []
  const clangs = [...ownClang, 'clang', ...numbered('clang')].map(clang)
  return family === 'gcc' ? [...gccs, ...clangs] : [...clangs, ...gccs]
}

/**
 * Finds the compiler to use. Errors: `compiler_missing` if none for this architecture is installed; `compiler_mismatch`
 * if each of them refuses an option that the kernel's layouts may depend on.
 */
export async function findCompiler(
  facts: Pick<HeaderFacts, 'machine' | 'compiler'>,
  sandbox: Sandbox,
  work: string,
  signal?: AbortSignal,
): Promise<HeaderCompiler> {
  const { machine } = facts
  let refused: string | undefined
  await writeFile(join(work, 'probe.c'), 'struct probe { int *member; } probe;\n')
  for (const { name, program } of choicesFor(facts)) {
    const path = pathOf(program)
    if (path === undefined) continue
    const compiler = await describe(name, path, machine, signal)
    if (!compiler) continue
    const { paths } = sandbox
    const args = [...compiler.options, '-c', `${paths.work}/probe.c`, '-o', `${paths.work}/probe.o`]
    // without `-w` clang tells which options it ignores
    const strict = args.filter((arg) => arg !== '-w')
    const flags =
      name === 'clang'
        ? [
            '-Werror=unknown-warning-option',
            '-Werror=ignored-optimization-argument',
            '-Werror=unused-command-line-argument',
          ]
        : []
    const { ended, status, stderr } = await sandbox.run(path, [
      ...flags,
      ...withoutIncludes(strict),
    ])
    if (ended === 'status' && status === 0) return compiler
    const [error = `it ended with ${status}`] = /(?:error|warning): .{1,160}/.exec(stderr) ?? []
    refused ??= `${name} ${compiler.version}: ${error}`
  }
  if (refused !== undefined)
    throw new GeneratorError(
      'compiler_mismatch',
      `no compiler on this machine takes the options of ${machine.arch} kernels: ${refused}`,
    )
  throw new GeneratorError(
    'compiler_missing',
    `no compiler for ${machine.arch} is installed: install clang, or gcc-${machine.target.replaceAll('_', '-')}`,
  )
}

/** The options without headers, which the probe does not include. */
function withoutIncludes(args: readonly string[]): string[] {
  return args.filter((arg, at) => arg !== '-include' && args[at - 1] !== '-include')
}

function pathOf(program: string): string | undefined {
  return DIRECTORIES.map((directory) => join(directory, program)).find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** A compiler's own description; undefined if it is for another architecture, or not what its name says. */
async function describe(
  name: HeaderCompiler['name'],
  path: string,
  machine: HeaderMachine,
  signal: AbortSignal | undefined,
): Promise<HeaderCompiler | undefined> {
  const ask = async (...args: string[]) => {
    const limits = { seconds: ASKING, ...(signal && { signal }) }
    const { ended, status, stdout } = await runChild(path, args, limits)
    return ended === 'status' && status === 0 ? stdout.toString('latin1').trim() : undefined
  }
  const first = (await ask('--version'))?.split('\n')[0] ?? ''
  const [, version] = / (\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)/.exec(first) ?? []
  const include = await ask('-print-file-name=include')
  if (version === undefined || !include?.startsWith('/')) return undefined
  if (/clang/i.test(first) !== (name === 'clang')) return undefined
  if (name === 'gcc' && !isFor(machine, (await ask('-dumpmachine')) ?? '')) return undefined
  const target = name === 'clang' ? [`--target=${machine.target}`] : []
  const options = [...target, ...COMMON_OPTIONS, ...machine.options, ...(machine[name] ?? [])]
  return { name, version, target: machine.target, path, include, options }
}

/** Tells whether a gcc for a target makes code for a machine; the one of x86 makes code of both word sizes. */
function isFor({ arch, target }: HeaderMachine, found: string): boolean {
  const [cpu = ''] = found.split('-')
  if (/^(x86_64|i[3-6]86)$/.test(cpu)) return arch === 'x86_64' || arch === 'i686'
  return cpu === target.split('-')[0]
}
