/*
 * Runs pahole, which makes BTF of DWARF. Its options differ by version, so the installed one is asked what it supports.
 * It gets the options of the kernel's own build (scripts/Makefile.btf, earlier scripts/pahole-flags.sh), so that the
 * BTF is what CONFIG_DEBUG_INFO_BTF would have made; but one thread, since with `-j` the order of types changes from
 * run to run, unless it is asked for `reproducible_build`, which gives the bytes of one thread. Its memory and time are limited: pahole is known to crash, and to exhaust the machine.
 */
import { rm, stat } from 'node:fs/promises'
import { scrubbed, type Tool } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type ChildResult, runChild } from '../subprocess.ts'

/** btfmill's own part of the fingerprint; increased when btfmill would make other BTF of the same package. */
const FINGERPRINT_VERSION = 1

export interface PaholeLimits {
  /** bytes of anonymous memory; 1.24 uses 420 MB for a distribution's kernel */
  memory: number
  /** wall-clock time */
  seconds: number
  /** bytes of BTF */
  output: number
  /** tells whether pahole may use that many bytes of memory now */
  room?: (bytes: number) => boolean
}

export const PAHOLE_LIMITS: PaholeLimits = {
  memory: 3 * 1024 ** 3,
  seconds: 900,
  output: 64 * 1024 ** 2,
}

/** The BTF features that the kernel's build asks of pahole 1.26 and later (scripts/Makefile.btf). */
const FEATURES = [
  'encode_force',
  'var',
  'float',
  'enum64',
  'decl_tag',
  'type_tag',
  'optimized_func',
  'consistent_func',
  'decl_tag_kfuncs',
  // from 1.30 on: attributes of types in kfuncs, such as address_space(1)
  'attributes',
]

/** With it, the BTF does not depend on the number of threads. */
const REPRODUCIBLE = 'reproducible_build'

export interface PaholeOptions {
  /** threads of one pahole, if it can make the same BTF with several: from 1.26 on (default: 1) */
  paholeThreads?: number
}

/**
 * Finds the installed pahole's version, and the options that it will get. The fingerprint does not depend on the number of
 * threads, as the BTF does not. Errors: `pahole_missing`.
 */
export async function findPahole(
  signal?: AbortSignal,
  { paholeThreads: threads = 1 }: PaholeOptions = {},
): Promise<Tool> {
  const ask = (...args: string[]) =>
    runChild('pahole', args, { seconds: 30, ...(signal && { signal }) })
  const { stdout, ended } = await ask('--version')
  const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(stdout.toString()) ?? []
  if (ended === 'missing' || !minor) {
    throw new GeneratorError(
      'pahole_missing',
      'pahole is not installed: install the package pahole or dwarves',
    )
  }
  const version = Number(major) * 100 + Number(minor)
  if (version < 118)
    throw new GeneratorError(
      'pahole_missing',
      `pahole ${major}.${minor} is too old: 1.18 or later is needed`,
    )
  const supported = version >= 126 ? (await ask('--supported_btf_features')).stdout.toString() : ''
  const features = supported.trim().split(',')
  const options = optionsFor(version, features)
  const mayThread = threads > 1 && features.includes(REPRODUCIBLE)
  const name = `${major}.${minor}`
  return {
    name: 'pahole',
    version: name,
    options: mayThread ? threaded(options, threads) : options,
    fingerprint: `${FINGERPRINT_VERSION} pahole ${name} ${options.join(' ')}`,
  }
}

/** Options for several threads that give the BTF of one. */
const threaded = (options: readonly string[], threads: number): string[] => [
  ...options.map((option) =>
    option.startsWith('--btf_features=') ? `${option},${REPRODUCIBLE}` : option,
  ),
  `-j${threads}`,
]

/** The options of the kernel's build for a pahole version (124 for 1.24), without `-j`. */
export function optionsFor(version: number, features: readonly string[]): string[] {
  const options: string[] = []
  if (version >= 126) {
    options.push(
      `--btf_features=${FEATURES.filter((feature) => features.includes(feature)).join(',')}`,
    )
  } else {
    if (version <= 121) options.push('--skip_encoding_btf_vars')
    options.push('--btf_gen_floats')
    if (version >= 125)
      options.push('--skip_encoding_btf_inconsistent_proto', '--btf_gen_optimized')
  }
  // without it the BTF contains Rust's types
  if (version >= 124) options.push('--lang_exclude=rust')
  return options
}

/**
 * Writes the BTF of a vmlinux to the file `target`, which is removed on failure. Errors, with the end of stderr:
 * `pahole_crashed`, `pahole_failed`, `pahole_out_of_memory`, `pahole_timeout`, `pahole_missing`, `no_space`.
 */
export async function encodeBtf(
  tool: Tool,
  vmlinux: string,
  target: string,
  limits: PaholeLimits = PAHOLE_LIMITS,
  signal?: AbortSignal,
): Promise<void> {
  const args = [...tool.options, `--btf_encode_detached=${target}`, vmlinux]
  try {
    const { memory, seconds, output, room = () => true } = limits
    const result = await runChild('pahole', args, {
      memory: (bytes) => bytes <= memory && room(bytes),
      seconds,
      fileSize: output,
      ...(signal && { signal }),
    })
    checkResult(result, limits)
    await checkWritten(target, result)
  } catch (error) {
    await rm(target, { force: true })
    throw error
  }
}

/**
 * pahole 1.24 exits 0 without a file for DWARF with DW_TAG_partial_unit, as dwz makes it, and for DWARF without types.
 * Only another pahole may do better.
 */
async function checkWritten(target: string, { stderr: log }: ChildResult): Promise<void> {
  const { size } = await stat(target).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return { size: 0 }
    throw error
  })
  if (size > 0) return
  const [warning] = /^.*\S.*$/m.exec(scrubbed(log)) ?? []
  const why = warning ? `: ${warning.trim().slice(0, 200)}` : ''
  throw new GeneratorError('pahole_failed', `pahole wrote no BTF and reported success${why}`, {
    log,
  })
}

function checkResult(
  { ended, status, signal, stderr: log }: ChildResult,
  limits: PaholeLimits,
): void {
  switch (ended) {
    case 'memory':
      throw new GeneratorError(
        'pahole_out_of_memory',
        `pahole used more than ${mib(limits.memory)} of memory`,
        { log },
      )
    case 'time':
      throw new GeneratorError('pahole_timeout', `pahole ran for more than ${limits.seconds} s`, {
        log,
      })
    case 'missing':
      throw new GeneratorError('pahole_missing', 'pahole is not installed')
    case 'signal':
      // only the kernel's OOM killer sends SIGKILL
      if (signal === 'SIGKILL')
        throw new GeneratorError(
          'pahole_out_of_memory',
          'pahole was killed, probably by the OOM killer',
          { log },
        )
      if (signal === 'SIGXFSZ') throw wroteTooMuch(limits, log)
      throw new GeneratorError('pahole_crashed', `pahole crashed with ${signal}`, { log })
    case 'status':
      if (status === 0) return
      if (/cannot allocate memory|(out of|insufficient) memory|memory exhausted/i.test(log)) {
        throw new GeneratorError('pahole_out_of_memory', 'pahole could not allocate memory', {
          log,
        })
      }
      if (writtenOf(log) === limits.output) throw wroteTooMuch(limits, log)
      if (writtenOf(log) !== undefined || /no space left/i.test(log))
        throw new GeneratorError('no_space', 'no disk space left for the BTF', { log })
      throw new GeneratorError('pahole_failed', `pahole exited with status ${status}`, { log })
    default:
      ended satisfies never
  }
}

const mib = (bytes: number): string => `${Math.round(bytes / 1024 ** 2)} MiB`

/** The bytes that pahole could write if its one write(2) was cut short (btf_encoder__write_raw_file). */
function writtenOf(log: string): number | undefined {
  const [, bytes] = /could only write (\d+) bytes/i.exec(log) ?? []
  return bytes === undefined ? undefined : Number(bytes)
}

function wroteTooMuch({ output }: PaholeLimits, log: string): GeneratorError {
  return new GeneratorError('pahole_failed', `pahole wrote more than ${mib(output)} of BTF`, {
    log,
  })
}
