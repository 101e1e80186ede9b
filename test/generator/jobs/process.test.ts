/*
 * Runs as processes of their own, as users have them: on a disk that is full, and killed at every stage. A file is
 * there whole or not at all, and the next run mends what is missing.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { makePackage } from '../../helpers/package.ts'
import { type Mill, makeMill } from '../../helpers/run-directory.ts'
import { type ImageOptions, makeVmlinux, manyStructs } from '../../helpers/vmlinux.ts'

const MAIN = join(import.meta.dirname, '../../../service/cli/main.ts')

/** Makes a package in a directory of its own. */
async function packageOf(image: ImageOptions = {}): Promise<string> {
  const { directory } = await makeMill(t)
  const path = join(directory, 'vmlinux')
  makeVmlinux(path, image)
  return makePackage(directory, path)
}

const small = await packageOf()
/** its image takes 2 pages, its BTF 3 */
const middling = await packageOf({ more: manyStructs(600) })
/** its pahole takes some tenths of a second */
const slow = await packageOf({ more: manyStructs(50_000) })

/**
 * Runs `btfmill generate` with a file system of so many bytes on a directory. What is on it is copied to `copy`
 * afterwards, since it is gone with the process.
 */
function generateOnSmallDisk(
  file: string,
  { storeUrl, scratch }: Mill,
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
  t.test(`no room for ${what}`, async (t) => {
    const mill = await makeMill(t)
    const copy = join(mill.directory, 'copy')
    const { status, stdout } = generateOnSmallDisk(file, mill, {
      on: mill.scratch,
      size,
      copy,
    })
    t.equal(status, 1)
    t.match(stdout, /"event":"summary","published":0.*"failed":{"no_space":1}/)
    t.match(await mill.records(), [{ failure: { code: 'no_space' }, btf: undefined }])
    t.same(readdirSync(copy), [], 'nothing is left on the full disk')
    t.same(await mill.leftovers(), [])

    t.match(await mill.run([file]), { published: 1 }, 'with room')
  })
}

t.test('no room in the store, not even for the failure', async (t) => {
  const mill = await makeMill(t)
  const disk = {
    on: mill.storeUrl.slice('file:'.length),
    size: PAGE,
    copy: join(mill.directory, 'copy'),
  }
  const { status, stdout } = generateOnSmallDisk(small, mill, disk)
  t.equal(status, 1)
  t.match(stdout, /"event":"failed".*"code":"no_space"/)
  t.same(readdirSync(join(disk.copy, '.tmp')), [])
  t.notOk(existsSync(join(disk.copy, 'kernels')), 'no half a record')
  t.same(readdirSync(mill.scratch), [])
})

for (const moment of ['"started"', '"unpack"', '"pahole"', '"check"', '"publish"']) {
  t.test(`killed at ${moment}`, async (t) => {
    const mill = await makeMill(t)
    const args = ['generate', '--json', '--store', mill.storeUrl, '--scratch', mill.scratch, slow]
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    const closed = once(child, 'close')
    for await (const line of createInterface({ input: child.stdout })) {
      if (line.includes(moment)) child.kill('SIGKILL')
    }
    const [status, signal] = await closed
    t.ok(signal === 'SIGKILL' || status === 0, 'killed, unless it was faster')
    await mill.verify()
    const records = await mill.records()
    t.ok(records.length <= 1 && records.every(({ failure }) => !failure), 'a record or none')

    t.match(await mill.run([slow]), { published: 1 })
    await mill.verify()
    const [blob, ...others] = await mill.leftovers()
    t.match(blob, /^store\/blobs\//)
    t.same(others, [], 'the next run removes what the killed one left')
  })
}
