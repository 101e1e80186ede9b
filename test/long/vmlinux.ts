/*
 * A real vmlinux for tests that need any: from Debian's smallest package with debug info, downloaded once, up to the end of
 * vmlinux, into `.cache/vmlinux`. `renamed` gives it another `uname -r`, through its banner.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { findPackages } from '../../generator/indexes/available.ts'
import { jobOf } from '../../generator/jobs/job.ts'
import { fetchVmlinux } from '../../generator/packages/fetch.ts'
import { openStore } from '../../storage/index.ts'

const FOLDER = join(import.meta.dirname, '../../.cache/vmlinux')

/** Returns the path of an architecture's vmlinux. */
export async function realVmlinux(arch: string): Promise<string> {
  await mkdir(FOLDER, { recursive: true })
  const path = join(FOLDER, arch)
  if (existsSync(path)) return path
  const filter = { distro: 'debian', arch }
  const { packages } = await findPackages({
    store: await openStore('memory:'),
    filter,
    roles: ['debug'],
  })
  const [minSize] = packages.toSorted((a, b) => (a.size ?? 0) - (b.size ?? 0))
  if (!minSize) throw new Error(`the mirror has no kernel for ${arch} now`)
  const options = { earlyStop: true, onProgress() {} }
  const { vmlinux, done } = await fetchVmlinux(
    jobOf(minSize),
    { vmlinux: `${path}.partial` },
    options,
  )
  await Promise.all([vmlinux, done])
  await rename(`${path}.partial`, path)
  return path
}

/** Writes a copy whose banner names another release, without changing its length. */
export function renamed(from: string, to: string, release: string): void {
  const bytes = readFileSync(from)
  for (
    let at = bytes.indexOf('Linux version ');
    at >= 0;
    at = bytes.indexOf('Linux version ', at + 1)
  ) {
    const end = bytes.indexOf('\n', at)
    const banner = bytes.toString('latin1', at, end)
    const [, build] = /^Linux version \d\S* \(.*(#\d+ .*)$/s.exec(banner) ?? []
    if (build === undefined) continue
    const start = `Linux version ${release} (`
    const filling = banner.length - start.length - `) ${build}`.length
    bytes.write(`${start}${'x'.repeat(filling)}) ${build}`, at, 'latin1')
  }
  writeFileSync(to, bytes)
}
