/*
 * Runs in processes of their own, as users start them: on a disk that is full, and killed at every stage. A file is
 * there in whole or not at all, and the next run makes what is missing.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { makePackage } from '../../helpers/package.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { type ImageOptions, makeVmlinux, manyStructs } from '../../helpers/vmlinux.ts'
import { until } from '../../helpers/wait-until.ts'

const MAIN = join(import.meta.dirname, '../../../service/cli/main.ts')

/** Makes a package in a directory of its own. */
async function packageOf(image: ImageOptions = {}): Promise<string> {
  const { directory } = await makeRunDirectory(t)
  const path = join(directory, 'vmlinux')
  makeVmlinux(path, image)
  return makePackage(directory, path)
}

const small = await packageOf()
/** the image has 2 pages, the BTF 3 */
const middling = await packageOf({ more: manyStructs(600) })
/** pahole takes some tenths of a second */
const slow = await packageOf({ more: manyStructs(50_000) })

/**
 * Runs `btfmill generate` with a file system of `size` bytes mounted on the directory `on`. Its files are copied to
 * `copy` afterwards, since the file system is gone when the process has ended.
 */
function generateOnSmallDisk(
  file: string,
  { storeUrl, scratch }: RunDirectory,
  disk: { on: string; size: number; copy: string },
): { status: number | null; stdout: string; stderr: string } {
  mkdirSync(disk.on, { recursive: true })
  mkdirSync(disk.copy, { recursive: true })
  const script = `
    mount -t tmpfs -o size="$2" tmpfs "$1"
    "$4" "$5" generate --json --store "$6" --scratch "$7" "$8"
    status=$?
    cp -a "$1/." "$3"
    exit $status
  `
  const args = [disk.on, String(disk.size), disk.copy, process.execPath, MAIN, storeUrl, scratch]
  const user = process.getuid?.() === 0 ? [] : ['--map-root-user']
  const shell = ['--mount', 'sh', '-c', script, 'sh', ...args, file]
  return spawnSync('unshare', [...user, ...shell], { encoding: 'utf8' })
}

const PAGE = 4096

for (const [what, file, size] of [
  ['vmlinux', slow, 32 * PAGE],
  ['the BTF', small, PAGE],
  ['all of the BTF', middling, 3 * PAGE],
] as const) {
  t.test(
    `a disk without space for ${what} fails the job with no_space, and a later run succeeds`,
    async (t) => {
      const env = await makeRunDirectory(t)
      const copy = join(env.directory, 'copy')
      const { status, stdout } = generateOnSmallDisk(file, env, {
        on: env.scratch,
        size,
        copy,
      })
      t.equal(status, 1)
      t.match(stdout, /"event":"summary","published":0.*"failed":{"no_space":1}/)
      t.match(await env.records(), [{ failure: { code: 'no_space' }, btf: undefined }])
      t.same(readdirSync(copy), [], 'nothing is left on the full disk')
      t.same(await env.leftovers(), [])

      t.match(await env.run([file]), { published: 1 }, 'with room')
    },
  )
}

t.test(
  'a store without space for anything, even the failure, is left without partial files',
  async (t) => {
    const env = await makeRunDirectory(t)
    const disk = {
      on: env.storeUrl.slice('file:'.length),
      size: PAGE,
      copy: join(env.directory, 'copy'),
    }
    const { status, stdout } = generateOnSmallDisk(small, env, disk)
    t.equal(status, 1)
    t.match(stdout, /"event":"failed".*"code":"no_space"/)
    t.same(readdirSync(join(disk.copy, '.tmp')), [])
    t.notOk(existsSync(join(disk.copy, 'kernels')), 'no partial record')
    t.same(readdirSync(env.scratch), [])
  },
)

for (const moment of ['"started"', '"unpack"', '"pahole"', '"check"', '"publish"']) {
  t.test(
    `a run that is killed at ${moment} leaves a valid store, and the next run completes it`,
    async (t) => {
      const env = await makeRunDirectory(t)
      const args = ['generate', '--json', '--store', env.storeUrl, '--scratch', env.scratch, slow]
      const child = spawn(process.execPath, [MAIN, ...args], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const closed = once(child, 'close')
      for await (const line of createInterface({ input: child.stdout })) {
        if (line.includes(moment)) child.kill('SIGKILL')
      }
      const [status, signal] = await closed
      t.ok(signal === 'SIGKILL' || status === 0, 'killed, unless it ended before')
      await env.verify()
      const records = await env.records()
      t.ok(
        records.length <= 1 && records.every(({ failure }) => !failure),
        'a complete record or none',
      )

      t.match(await env.run([slow]), { published: 1 })
      await env.verify()
      const [blob, ...others] = await env.leftovers()
      t.match(blob, /^store\/blobs\//)
      t.same(others, [], 'the next run removes the scratch files of the killed one')
    },
  )
}

/** Writes a program called `name` that tells its process id and then sleeps. Returns the file with the id. */
function sleeper(directory: string, name: string, version = ''): string {
  const mark = join(directory, `${name}.pid`)
  const script = `#!/bin/sh
[ "$1" = --version ] && { echo '${version}'; exit; }
echo $$ > '${mark}.new' && mv '${mark}.new' '${mark}'
exec sleep 600
`
  writeFileSync(join(directory, name), script, { mode: 0o755 })
  return mark
}

/** Starts Node with programs of `directory` first, and kills it once the sleeper runs. Returns the sleeper's id. */
async function killBeside(mark: string, directory: string, args: readonly string[]) {
  const env = { ...process.env, PATH: `${directory}:${process.env.PATH}` }
  const child = spawn(process.execPath, args, { env, stdio: 'ignore' })
  const ended = once(child, 'exit')
  await until(
    async () => existsSync(mark) || child.exitCode !== null,
    (isThere) => isThere,
  )
  const pid = readFileSync(mark, 'utf8').trim()
  const wasThere = existsSync(`/proc/${pid}`)
  child.kill('SIGKILL')
  await ended
  return { pid, wasThere }
}

/** Tells whether a process runs: one that has ended may still be listed as a zombie. */
function isRunning(pid: string): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

t.test('pahole and xz end with a process that SIGKILL ends', async (t) => {
  const { directory, storeUrl, scratch } = await makeRunDirectory(t)
  const storage = join(import.meta.dirname, '../../../storage')
  const evaluate = (code: string) => ['--input-type=module', '--eval', code]
  const bundle = join(import.meta.dirname, '../../../service/bundle/compress.ts')
  for (const [name, args] of [
    ['pahole', [MAIN, 'generate', '--store', storeUrl, '--scratch', scratch, small]],
    ['xz', evaluate(`(await import('${storage}/xz.ts')).compressXz(Buffer.alloc(9), 999)`)],
    [
      'xz',
      evaluate(`for await (const _ of (await import('${bundle}')).compress(
        (async function* () { yield Buffer.alloc(9) })(), 'xz', 9));`),
    ],
  ] as const) {
    const programs = mkdtempSync(join(directory, 'programs-'))
    const mark = sleeper(programs, name, 'v1.24')
    const { pid, wasThere } = await killBeside(mark, programs, args)
    t.ok(wasThere, `${name} ran`)
    await until(
      async () => isRunning(pid),
      (runs) => !runs,
    )
    t.notOk(isRunning(pid), `${name} has ended`)
  }
})
