/*
 * Runs tap, and adds six things to it:
 *
 * - It builds tap's plugin list first where that is missing or stale. `tap run` also does this, but then starts the
 *   tests with the loaders of the old list, and the whole run fails.
 * - A test file that a signal ended (SIGSEGV in Node, an out-of-memory kill) is named and run once more. A file in
 *   which an assertion failed or a timeout expired is never run again.
 * - It keeps stripped TypeScript in Node's compile cache. Without it every process compiles Node's type stripper, which
 *   is WebAssembly: starts take twice as long, and parallel compilations of WebAssembly are known to end Node with
 *   SIGSEGV now and then (nodejs/node#64500).
 * - It prints the slowest files, and the names of failed tests.
 * - Its last line is `N passed, N failed` or `N passed, N failed, N skipped`, as .ci/run needs it.
 *
 * Usage: node test/run.ts [TAP-OPTION…] [FILE…]. Options with a value are written as --option=value. It exits with 0
 * if all tests passed, where a crashed file has its second run.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Parser, type Result } from 'tap-parser'
import { parse } from 'yaml'

const SLOWEST = 10
/** The most names of failed tests that are printed. */
const MAX_NAMES = 50
/** Characters of such a name. */
const MAX_NAME = 300

const require = createRequire(import.meta.url)
const TAP = join(
  dirname(require.resolve('tap/package.json')),
  (require('tap/package.json') as { bin: { tap: string } }).bin.tap,
)
/** What `tap build` writes: the class behind `import t from 'tap'`. */
const TEST_CLASS = 'node_modules/@tapjs/test/test-built/dist/esm/index.js'

interface TestFile {
  name: string
  ok: boolean
  milliseconds: number
  passed: number
  failed: number
  skipped: number
  /** the signal that ended its process */
  signal?: string
}

type Count = 'passed' | 'failed' | 'skipped'

/** One run of tap. */
interface Run {
  status: number
  files: TestFile[]
  /** failures that belong to no file: a bailout, a file that did not run */
  otherFailures: number
  /** the names of failed tests with those of the tests around them, the inner ones first */
  failedTests: string[]
}

/** True if tap's test class is built with plugins that .taprc excludes, or is missing. */
function needsBuild(): boolean {
  const { plugin = [] } = (parse(readFileSync('.taprc', 'utf8')) ?? {}) as { plugin?: string[] }
  if (!existsSync(TEST_CLASS)) return true
  const built = readFileSync(TEST_CLASS, 'utf8')
  return plugin.some((name) => {
    const excluded = name.startsWith('!')
    return built.includes(` from "${name.replace(/^!/, '')}"`) === excluded
  })
}

/**
 * Collects the files and counts of a TAP stream, as tap itself counts them: every assertion, at every depth. The parser
 * emits the assertions of a file first, then the test point of the file, which counts only where no assertion does.
 */
async function readTap(stream: Readable): Promise<Omit<Run, 'status'>> {
  const files: TestFile[] = []
  const names = new Set<string>()
  let counts = { passed: 0, failed: 0, skipped: 0 }
  let otherFailures = 0
  const failedTests: string[] = []
  let topLevel: { point: Result; file: TestFile | undefined } | undefined

  const count = (key: Count) => (point: Result) => {
    if (point !== topLevel?.point) counts[key]++
    else if (topLevel.file && !topLevel.file.signal) topLevel.file[key]++
  }
  const parser = new Parser(({ bailout, plan, count }) => {
    if (bailout || plan.end !== count) otherFailures++
  })
  parser.on('pass', count('passed')).on('fail', count('failed')).on('skip', count('skipped'))
  parser.on('fail', ({ fullname, diag }: Result) => {
    const isOfFile = !diag?.expired || fullname.startsWith(diag.expired)
    failedTests.push(isOfFile ? fullname : `${diag.expired} > ${fullname}`)
  })
  parser.on('child', ({ name }) => names.add(name))
  parser.on('assert', (point: Result) => {
    const { name, ok, time, diag } = point
    topLevel = { point, file: undefined }
    const owner = names.has(name) ? name : diag?.expired
    if (names.has(owner)) {
      const signal = diag?.signal as string | undefined
      const file = files.find((file) => file.name === owner) ?? {
        ...{ name: owner, ok, milliseconds: time ?? 0, ...counts },
        ...(signal && { signal }),
      }
      topLevel.file = file
      if (!files.includes(file)) files.push(file)
      // After its timeout, tap itself ends the file with a signal: that is a failure, not a crash.
      if (diag?.expired) delete file.signal
      counts = { passed: 0, failed: 0, skipped: 0 }
    } else if (!ok) otherFailures++
  })
  const complete = once(parser, 'complete')
  for await (const chunk of stream) parser.write(chunk as Buffer)
  parser.end()
  await complete
  return { files, otherFailures, failedTests }
}

let interrupted = false

/** Runs tap. On a terminal its reporter draws on it, elsewhere the TAP stream is copied to stdout. */
async function runTap(args: readonly string[]): Promise<Run> {
  const terminal = process.stdout.isTTY
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-tap-'))
  const output = join(directory, 'output.tap')
  const child = spawn(
    process.execPath,
    [TAP, 'run', terminal ? `--output-file=${output}` : '--reporter=tap', ...args],
    {
      stdio: ['inherit', terminal ? 'inherit' : 'pipe', 'inherit'],
      env: { NODE_COMPILE_CACHE: resolve('.cache/compile'), ...process.env },
    },
  )
  const stop = (signal: NodeJS.Signals) => {
    interrupted = true
    child.kill(signal)
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
  try {
    const copy = new Transform({
      transform(chunk, _encoding, done) {
        process.stdout.write(chunk)
        done(null, chunk)
      },
    })
    const closed = once(child, 'close') as Promise<[number | null]>
    const read = child.stdout
      ? Promise.all([pipeline(child.stdout, copy), readTap(copy)]).then(([, run]) => run)
      : closed.then(() => readTap(createReadStream(output)))
    const [[status], run] = await Promise.all([closed, read])
    return { status: status ?? 1, ...run }
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
    rmSync(directory, { recursive: true })
  }
}

const sum = (files: readonly TestFile[], key: Count): number =>
  files.reduce((total, file) => total + file[key], 0)

function printSlowest(files: readonly TestFile[]): void {
  const slowest = files
    .toSorted((a, b) => b.milliseconds - a.milliseconds)
    .slice(0, SLOWEST)
    .map(({ name, milliseconds }) => `${(milliseconds / 1000).toFixed(1).padStart(7)} s  ${name}`)
  console.log(['', 'slowest files:', ...slowest].join('\n'))
}

/** Prints the names of failed tests, without those that failed because of a test inside of them. */
function printFailed(names: readonly string[]): void {
  const inner = names.filter(
    (name, i) => !names.slice(0, i).some((earlier) => earlier.startsWith(`${name} > `)),
  )
  if (inner.length === 0) return
  const listed = inner.slice(0, MAX_NAMES).map((name) => name.split('\n')[0]!.slice(0, MAX_NAME))
  console.log(['', 'failed tests:', ...listed].join('\n'))
  if (inner.length > MAX_NAMES) console.log(`… and ${inner.length - MAX_NAMES} more`)
}

/** Describes the end of a file that a signal ended, after its second run if it had one. */
function describeCrash({ name, signal, failed }: TestFile, again: TestFile | undefined): string {
  if (failed > 0)
    return `crashed: ${name} was ended by ${signal} after a failed assertion; not run again`
  if (!again) return `crashed: ${name} was ended by ${signal}; not run again`
  if (again.signal)
    return `crashed: ${name} was ended by ${signal}, and by ${again.signal} when run again`
  const verdict = again.failed > 0 ? 'failed' : 'passed'
  return `crashed: ${name} was ended by ${signal}; it ${verdict} when run again`
}

async function main(args: readonly string[]): Promise<number> {
  if (needsBuild()) {
    console.error('building the plugins of tap that .taprc names')
    const { status } = spawnSync(process.execPath, [TAP, 'build'], { stdio: 'inherit' })
    if (status !== 0) return status ?? 1
  }
  const first = await runTap(args)
  const crashed = first.files.filter(({ signal }) => signal)
  const retried = crashed.filter(({ failed }) => failed === 0).map(({ name }) => name)
  let again: Run | undefined
  if (retried.length > 0 && !interrupted) {
    console.log(`\nrunning once more what a signal ended: ${retried.join(' ')}`)
    again = await runTap([...args.filter((arg) => !existsSync(arg)), ...retried])
  }
  const final = [
    ...first.files.filter(({ name }) => !again || !retried.includes(name)),
    ...(again?.files ?? []),
  ]
  const failures =
    first.otherFailures +
    (again?.otherFailures ?? 0) +
    sum(final, 'failed') +
    final.filter(({ ok, failed }) => !ok && failed === 0).length

  printSlowest(final)
  const failed = first.failedTests.filter((name) => !retried.includes(name))
  printFailed([...failed, ...(again?.failedTests ?? [])])
  for (const file of crashed) {
    const second = again?.files.find(({ name }) => name === file.name)
    console.log(describeCrash(file, retried.includes(file.name) ? second : undefined))
  }
  const skipped = sum(final, 'skipped')
  console.log(
    `${sum(final, 'passed')} passed, ${failures} failed${skipped ? `, ${skipped} skipped` : ''}`,
  )
  const status = again ? again.status : first.status
  return failures > 0 ? status || 1 : status
}

process.exitCode = await main(process.argv.slice(2))
