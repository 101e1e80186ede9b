/*
 * Compiles the headers of a tree into object files with debug info, one for each unit of the list. All headers of a unit
 * are tried together. A header that does not compile is left out, with the compiler's reason, and the others are tried
 * again. The first error names it, if all headers before it compile. Otherwise it is found by bisection: it ends the
 * shortest beginning of the list that does not compile. The number of runs and their time are bounded.
 */
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GeneratorError } from '../error.ts'
import type { ChildResult } from '../subprocess.ts'
import type { HeaderCompiler } from './compiler.ts'
import type { HeaderFacts } from './configuration.ts'
import { type HeaderUnit, headersOf, UNITS } from './header-list.ts'
import { checkLimits, type Sandbox } from './sandbox.ts'
import type { HeaderTree } from './tree.ts'

/** Runs of the compiler for one kernel. */
const MAX_RUNS = 120
/** Seconds for all of them together. */
const MAX_SECONDS = 900
/** Characters of a compiler's message that are kept. */
const MAX_REASON = 160
const MAX_DEPENDENCIES = 16 * 1024 ** 2

/** A header that is not in the result. */
export interface LeftOutHeader {
  header: string
  /** the compiler's message */
  reason: string
}

export interface CompiledHeaders {
  /** paths of the object files, a unit each; the first has the types that every kernel has */
  objects: readonly string[]
  compiled: readonly string[]
  /** number of headers that the kernel was built without, or that its version does not have */
  absent: number
  failed: readonly LeftOutHeader[]
}

/** Compiles what a kernel has of the list. */
export class HeaderCompilation {
  readonly #tree: HeaderTree
  readonly #facts: HeaderFacts
  readonly #compiler: HeaderCompiler
  readonly #sandbox: Sandbox
  readonly #work: string
  readonly #deadline = performance.now() + MAX_SECONDS * 1000
  #runs = 0

  /** `work`: the directory that the compiler may write to. */
  constructor(
    tree: HeaderTree,
    facts: HeaderFacts,
    compiler: HeaderCompiler,
    sandbox: Sandbox,
    work: string,
  ) {
    this.#tree = tree
    this.#facts = facts
    this.#compiler = compiler
    this.#sandbox = sandbox
    this.#work = work
  }

  /**
   * Errors: `headers_failed` if nothing of the first unit compiles, or the runs do not suffice; `headers_limit`;
   * `invalid_headers` if a header includes a file outside of the tree.
   */
  async run(units: readonly HeaderUnit[] = UNITS): Promise<CompiledHeaders> {
    const objects: string[] = []
    const compiled: string[] = []
    const failed: LeftOutHeader[] = []
    let absent = 0
    for (const [number, unit] of units.entries()) {
      const wanted = headersOf(unit, this.#facts.isBuiltIn).filter((path) => this.#has(path))
      absent += headersOf(unit).length - wanted.length
      const name = `unit${number}`
      const done = await this.#compileUnit(name, unit, wanted, failed)
      if (done.length > 0) objects.push(join(this.#work, `${name}.o`))
      else if (number === 0) throw nothingCompiles(failed)
      compiled.push(...done)
    }
    return { objects, compiled, absent, failed }
  }

  /** Compiles a unit; returns its headers that compile. Those that do not are added to `failed`. */
  async #compileUnit(
    name: string,
    unit: HeaderUnit,
    wanted: readonly string[],
    failed: LeftOutHeader[],
  ): Promise<readonly string[]> {
    let rest = wanted
    while (rest.length > 0) {
      const result = await this.#compile(name, unit, rest)
      if (isDone(result)) {
        await this.#checkDependencies(name)
        return rest
      }
      const culprit = rest[await this.#culpritOf(name, unit, rest, result.stderr)]!
      failed.push({ header: culprit, reason: this.#reasonIn(result.stderr) })
      rest = rest.filter((header) => header !== culprit)
    }
    return []
  }

  /** Tells whether the tree has a header, in the folders that are searched for it. */
  #has(path: string): boolean {
    const { folder } = this.#facts.machine
    return searchedFolders(folder).some((directory) => this.#tree.paths.has(`${directory}/${path}`))
  }

  /**
   * The index of the header that ends the shortest beginning of a list that does not compile. The first error names it,
   * unless an earlier header is to blame, such as one that opens a brace: then all before it do not compile either.
   */
  async #culpritOf(
    name: string,
    unit: HeaderUnit,
    headers: readonly string[],
    stderr: string,
  ): Promise<number> {
    const named = headerIn(stderr)
    if (named === undefined || named >= headers.length)
      return await this.#bisect(name, unit, headers)
    const before = headers.slice(0, named)
    if (named === 0 || isDone(await this.#compile(name, unit, before))) return named
    return await this.#bisect(name, unit, before)
  }

  /** Finds it in a list that does not compile, in as many runs as its length has binary digits. */
  async #bisect(name: string, unit: HeaderUnit, headers: readonly string[]): Promise<number> {
    let [good, bad] = [0, headers.length]
    while (bad - good > 1) {
      const middle = (good + bad) >>> 1
      if (isDone(await this.#compile(name, unit, headers.slice(0, middle)))) good = middle
      else bad = middle
    }
    return bad - 1
  }

  async #compile(
    name: string,
    { before = [], trace }: HeaderUnit,
    headers: readonly string[],
  ): Promise<ChildResult> {
    if (++this.#runs > MAX_RUNS || performance.now() > this.#deadline)
      throw new GeneratorError(
        'headers_failed',
        `too many headers do not compile: ${MAX_RUNS} runs or ${MAX_SECONDS} s did not suffice`,
      )
    const first = before.filter((path) => this.#has(path))
    await writeFile(join(this.#work, `${name}.c`), sourceOf(headers, first, trace === true))
    const { paths } = this.#sandbox
    const { path, include, options } = this.#compiler
    const { folder } = this.#facts.machine
    const result = await this.#sandbox.run(path, [
      ...['-nostdinc', '-isystem', include],
      ...searchedFolders(folder).map((directory) => `-I${paths.headers}/${directory}`),
      ...FORCED.filter((file) => this.#tree.paths.has(file)).flatMap((file) => [
        ...['-include', `${paths.headers}/${file}`],
      ]),
      ...options,
      ...['-MD', '-MF', `${paths.work}/${name}.d`],
      ...['-c', `${paths.work}/${name}.c`, '-o', `${paths.work}/${name}.o`],
    ])
    if (result.ended === 'missing')
      throw new GeneratorError('compiler_missing', `${path} cannot be started`)
    checkLimits(result, 'the compiler')
    return result
  }

  /**
   * Checks that all files that were read are in the tree, or the compiler's own. Errors: `invalid_headers`, which does not
   * say more of a file than its name.
   */
  async #checkDependencies(name: string): Promise<void> {
    const file = join(this.#work, `${name}.d`)
    const { size } = await stat(file)
    if (size > MAX_DEPENDENCIES)
      throw new GeneratorError('headers_limit', 'the headers include too many files')
    const { paths } = this.#sandbox
    const text = (await readFile(file, 'latin1')).replaceAll('\\\n', ' ')
    const read = text.slice(text.indexOf(':') + 1).split(/[ \n]+/)
    const own = [`${paths.headers}/`, `${paths.work}/${name}.c`, `${this.#compiler.include}/`]
    const strange = read.find((path) => path !== '' && !isInside(path, own))
    if (strange !== undefined)
      throw new GeneratorError(
        'invalid_headers',
        `a header includes a file outside of the package: ${JSON.stringify(strange.slice(0, 100))}`,
      )
  }

  /** The compiler's first error, without paths of this machine. Without isolation it may tell of other files: left out. */
  #reasonIn(stderr: string): string {
    if (!this.#sandbox.isolated) return 'does not compile'
    const { headers, work } = this.#sandbox.paths
    const [, place = '', message] =
      /^(?:(\S{1,300}?):\d{1,9}(?::\d{1,9})?: )?(?:fatal )?error: (.{1,300})/m.exec(stderr) ?? []
    const file = place.startsWith(`${headers}/`) ? `${place.slice(headers.length + 1)}: ` : ''
    const text = `${file}${message ?? 'does not compile'}`.replaceAll(`${headers}/`, '')
    return text
      .replaceAll(`${work}/`, '')
      .replace(/[^\x20-\x7e]/g, '?')
      .slice(0, MAX_REASON)
  }
}

const nothingCompiles = ([first]: readonly LeftOutHeader[]): GeneratorError =>
  new GeneratorError(
    'headers_failed',
    first
      ? `no header compiles: ${first.header}: ${first.reason}`
      : 'the headers lack all files that are compiled',
  )

/** Tells whether a path, with its `..` taken out, starts with one of some directories. */
function isInside(path: string, directories: readonly string[]): boolean {
  const plain = join('/', path)
  return directories.some((directory) => plain.startsWith(directory))
}

const isDone = ({ ended, status }: ChildResult): boolean => ended === 'status' && status === 0

/** Headers that the kernel's Makefile includes before all others. */
const FORCED = [
  'include/linux/compiler-version.h',
  'include/linux/kconfig.h',
  'include/linux/compiler_types.h',
]

/** The folders that are searched for headers, in the order of the kernel's Makefile (LINUXINCLUDE, USERINCLUDE). */
const searchedFolders = (folder: string): string[] => [
  ...[`arch/${folder}/include`, `arch/${folder}/include/generated`, 'include'],
  ...[`arch/${folder}/include/uapi`, `arch/${folder}/include/generated/uapi`],
  ...['include/uapi', 'include/generated/uapi'],
]

/** The number of the line with the first header that is tried. */
const FIRST_LINE = 1000

/** The C file of a unit: a header a line. */
function sourceOf(headers: readonly string[], before: readonly string[], trace: boolean): string {
  const include = (path: string) => `#include <${path}>`
  return `${[
    ...before.map(include),
    ...(trace ? ['#define CREATE_TRACE_POINTS'] : []),
    `#line ${FIRST_LINE}`,
    ...headers.map(include),
  ].join('\n')}\n`
}

/** The index of the header that the first error came from; undefined if it names none. */
function headerIn(stderr: string): number | undefined {
  const [, line] = /unit\d{1,2}\.c:(\d{1,6})(?=[:,])/.exec(stderr) ?? []
  const index = Number(line) - FIRST_LINE
  return Number.isInteger(index) && index >= 0 ? index : undefined
}
