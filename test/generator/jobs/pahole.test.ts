import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { parseBtf } from '../../../bpf/index.ts'
import {
  encodeBtf,
  findPahole,
  optionsFor,
  PAHOLE_LIMITS,
  type PaholeLimits,
} from '../../../generator/jobs/pahole.ts'
import { type ImageOptions, makeVmlinux, manyStructs, nestedBlocks } from '../../helpers/vmlinux.ts'

/** A vmlinux in a directory that is removed after the test. */
function imageOf(t: Test, options: ImageOptions = {}): { directory: string; image: string } {
  const directory = mkdtempSync(join(tmpdir(), 'pahole-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const image = join(directory, 'vmlinux')
  makeVmlinux(image, options)
  return { directory, image }
}

/** Replaces pahole by a script during the test; the real one is `$PAHOLE`. */
function standIn(t: Test, script: string): void {
  const directory = t.testdir({
    pahole: `#!/bin/sh\nPAHOLE=$(PATH=$PATH_BEFORE command -v pahole)\n${script}\n`,
  })
  chmodSync(join(directory, 'pahole'), 0o755)
  const before = process.env.PATH
  process.env.PATH_BEFORE = before
  process.env.PATH = `${directory}:${before}`
  t.teardown(() => {
    process.env.PATH = before
  })
}

/** Writes a part of the BTF, and hangs. */
const SLOW = `
  case $1 in --version) exec "$PAHOLE" "$1" ;; esac
  for option; do
    case $option in --btf_encode_detached=*) echo half > "\${option#*=}" ;; esac
  done
  exec sleep 600`

/** Asserts that encoding fails as expected, and leaves no file but vmlinux. */
async function fails(
  t: Test,
  options: ImageOptions,
  limits: Partial<PaholeLimits>,
  expected: { code: string; message?: RegExp; log?: RegExp },
): Promise<void> {
  const { directory, image } = imageOf(t, options)
  const tool = await findPahole()
  const target = join(directory, 'btf')
  await t.rejects(encodeBtf(tool, image, target, { ...PAHOLE_LIMITS, ...limits }), expected)
  t.same(readdirSync(directory), ['vmlinux'])
}

t.test("each version of pahole gets the options that the kernel's build gives it", (t) => {
  const features = ['encode_force', 'var', 'float', 'decl_tag', 'type_tag', 'enum64']
  t.same(optionsFor(118, []), ['--skip_encoding_btf_vars', '--btf_gen_floats'])
  t.same(optionsFor(122, []), ['--btf_gen_floats'])
  t.same(optionsFor(124, []), ['--btf_gen_floats', '--lang_exclude=rust'])
  t.same(optionsFor(125, []), [
    '--btf_gen_floats',
    '--skip_encoding_btf_inconsistent_proto',
    '--btf_gen_optimized',
    '--lang_exclude=rust',
  ])
  t.same(optionsFor(126, [...features, 'of_the_future']), [
    '--btf_features=encode_force,var,float,enum64,decl_tag,type_tag',
    '--lang_exclude=rust',
  ])
  t.match(optionsFor(130, ['decl_tag_kfuncs']), ['--btf_features=decl_tag_kfuncs'])
  const newest = [...features, 'decl_tag_kfuncs', 'reproducible_build', 'attributes', 'layout']
  t.match(optionsFor(131, newest), [/,type_tag,decl_tag_kfuncs,attributes$/], 'as Makefile.btf')
  t.notOk([118, 124, 125, 126, 130].some((version) => /-j/.test(`${optionsFor(version, [])}`)))
  t.end()
})

t.test(
  'the installed pahole is found, and its version and options are in the fingerprint',
  async (t) => {
    const tool = await findPahole()
    const [, major, minor] = /^(\d+)\.(\d+)$/.exec(tool.version) ?? []
    t.ok(Number(major) * 100 + Number(minor) >= 118, tool.version)
    t.equal(tool.fingerprint, `1 pahole ${tool.version} ${tool.options.join(' ')}`)
    t.comment(tool.fingerprint)
  },
)

t.test('pahole 1.26 and later is asked for the features that it supports', async (t) => {
  standIn(
    t,
    `
    case $1 in
      --version) echo v1.29 ;;
      --supported_btf_features) echo encode_force,var,float,reproducible_build ;;
    esac`,
  )
  const { version, options } = await findPahole()
  t.equal(version, '1.29')
  t.same(options, ['--btf_features=encode_force,var,float', '--lang_exclude=rust'])
})

t.test(
  'several threads are used where pahole then makes the same BTF, which no fingerprint shows',
  async (t) => {
    const alone = await findPahole()
    const installed = await findPahole(undefined, { paholeThreads: 4 })
    const isAble = installed.options.some((option) => option.includes('reproducible_build'))
    t.equal(installed.options.includes('-j4'), isAble)
    t.equal(installed.fingerprint, alone.fingerprint)
    standIn(
      t,
      `
    case $1 in
      --version) echo v1.29 ;;
      --supported_btf_features) echo encode_force,reproducible_build ;;
    esac`,
    )
    const one = await findPahole()
    const four = await findPahole(undefined, { paholeThreads: 4 })
    t.same(four.options, [
      '--btf_features=encode_force,reproducible_build',
      '--lang_exclude=rust',
      '-j4',
    ])
    t.equal(four.fingerprint, one.fingerprint)
  },
)

t.test('a pahole that is too old or not installed is reported as missing', async (t) => {
  standIn(t, 'echo v1.17')
  await t.rejects(findPahole(), { code: 'pahole_missing', message: /1\.17 is too old/ })
  process.env.PATH = t.testdir({})
  await t.rejects(findPahole(), { code: 'pahole_missing', message: /not installed/ })
})

t.test('the same vmlinux always gives the same BTF', async (t) => {
  const { directory, image } = imageOf(t)
  const tool = await findPahole()
  const targets = ['one', 'two'].map((name) => join(directory, name))
  for (const target of targets) await encodeBtf(tool, image, target)
  const [one, two] = targets.map((target) => readFileSync(target))
  t.ok(one!.equals(two!))
  t.ok(parseBtf(one!).find('task_struct', 'STRUCT'))
})

t.test('a crash of pahole is a failure with its signal', async (t) => {
  const options = { more: nestedBlocks(1_000_000) }
  await fails(t, options, {}, { code: 'pahole_crashed', message: /SIGSEGV/ })
})

t.test('a pahole that exceeds its memory limit is killed', async (t) => {
  const message = /more than 16 MiB/
  const limits = { memory: 16 * 1024 ** 2 }
  await fails(t, { more: manyStructs(100_000) }, limits, { code: 'pahole_out_of_memory', message })
})

t.test('a pahole that cannot allocate memory fails with pahole_out_of_memory', async (t) => {
  standIn(t, 'case $1 in --version) ;; *) ulimit -v 30000 ;; esac; exec "$PAHOLE" "$@"')
  const expected = { code: 'pahole_out_of_memory', log: /memory/ }
  await fails(t, { more: manyStructs(100_000) }, {}, expected)
})

t.test('a pahole that exceeds its time limit is killed', async (t) => {
  standIn(t, SLOW)
  await fails(t, {}, { seconds: 0.2 }, { code: 'pahole_timeout' })
})

t.test('a pahole that exceeds its output limit fails', async (t) => {
  const expected = { code: 'pahole_failed', message: /wrote more than/ }
  await fails(t, {}, { output: 100 }, expected)
})

t.test('a failure of pahole has its exit status and its stderr', async (t) => {
  const { directory, image } = imageOf(t)
  writeFileSync(image, 'no image')
  const target = join(directory, 'btf')
  const expected = { code: 'pahole_failed', message: /status \d/, log: /\S/ }
  await t.rejects(encodeBtf(await findPahole(), image, target), expected)
  t.same(readdirSync(directory), ['vmlinux'])
})

t.test('an abort kills pahole and removes its output', async (t) => {
  standIn(t, SLOW)
  const { directory, image } = imageOf(t)
  const reason = new Error('enough')
  const tool = await findPahole()
  const controller = new AbortController()
  const target = join(directory, 'btf')
  const running = encodeBtf(tool, image, target, PAHOLE_LIMITS, controller.signal)
  while (!existsSync(target)) await pause(5)
  controller.abort(reason)
  await t.rejects(running, reason)
  t.same(readdirSync(directory), ['vmlinux'])
})
