/*
 * Debian packages for the oracles, by the machine's own apt with its mirrors, keys and checks. Packages are downloaded
 * and unpacked below `.cache/oracle/` only; nothing is installed.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The folder with the oracles' downloads; git ignores it. */
export const ORACLE_CACHE = join(import.meta.dirname, '../../../.cache/oracle')

/** Unpacks packages of this machine's architecture into one folder, without dependencies; only once. */
export async function unpackPackages(names: readonly string[], folder: string): Promise<string> {
  return once(folder, async (directory) => {
    await run('apt-get', ['download', ...names], { cwd: directory })
    await unpack(directory, join(directory, 'root'))
  })
}

/** Unpacks packages of another architecture with all dependencies, so that their programs run in an emulator. */
export async function unpackForeign(
  architecture: string,
  names: readonly string[],
  folder: string,
): Promise<string> {
  return once(folder, async (directory) => {
    const archives = join(directory, 'cache/archives')
    await mkdir(join(directory, 'state/lists/partial'), { recursive: true })
    await mkdir(join(archives, 'partial'), { recursive: true })
    const options = [
      `APT::Architecture=${architecture}`,
      `APT::Architectures=${architecture}`,
      `Dir::State=${directory}/state`,
      'Dir::State::status=/dev/null',
      `Dir::Cache=${directory}/cache`,
      'Debug::NoLocking=true',
      'APT::Sandbox::User=root',
    ].flatMap((option) => ['-o', option])
    // One of several indexes may be out of step with its mirror; `install` reports what is missing then.
    await run('apt-get', [...options, 'update']).catch(() => undefined)
    const install = ['install', '--download-only', '--yes', '--no-install-recommends']
    await run('apt-get', [...options, ...install, ...names])
    await unpack(archives, join(directory, 'root'))
  })
}

/** Fills a folder of the cache completely or not at all. Returns the path of its `root`. */
async function once(folder: string, fill: (directory: string) => Promise<void>): Promise<string> {
  const directory = join(ORACLE_CACHE, folder)
  if (!existsSync(directory)) {
    const partial = `${directory}.partial`
    await rm(partial, { recursive: true, force: true })
    await mkdir(partial, { recursive: true })
    await fill(partial)
    await rename(partial, directory)
  }
  return join(directory, 'root')
}

async function unpack(archives: string, root: string): Promise<void> {
  for (const file of await readdir(archives)) {
    if (!file.endsWith('.deb')) continue
    await run('dpkg-deb', ['-x', join(archives, file), root])
    await rm(join(archives, file))
  }
}
