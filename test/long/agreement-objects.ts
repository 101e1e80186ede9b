/*
 * Objects that others wrote, as Debian's packages have them for an architecture: bcc's libbpf-tools, xdp-tools, PCP,
 * systemd, bpftool, QEMU, and the test data of cilium/ebpf. They are downloaded once, into `.cache/agreement`.
 */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type ByteOrder, openObject } from '../../bpf/index.ts'
import { GeneratorError } from '../../generator/error.ts'
import { kept } from '../../generator/prove/kept.ts'
import { findDebianPackages, unpackDebianPackage } from '../../generator/prove/package.ts'
import { withScratch } from '../../generator/scratch.ts'
import { extractObjects } from '../bpf/oracle/others.ts'

const PACKAGES = [
  ...['libbpf-tools', 'xdp-tools', 'pcp', 'golang-github-cilium-ebpf-dev'],
  ...['systemd', 'bpftool', 'qemu-system-common'],
]
/** Debian's releases; each has other versions of the packages. */
const VERSIONS = ['12', '13']

/** The paths of the objects of an architecture in this byte order, without those that are in several packages. */
export async function objectsFor(
  cache: string,
  arch: string,
  byteOrder: ByteOrder,
): Promise<string[]> {
  const objects = new Map<string, string>()
  for (const version of VERSIONS) {
    const directory = await kept(cache, `objects-${arch}-${version}`, async (into) => {
      const found = await findDebianPackages({ distro: 'debian', version, arch }, (name) =>
        PACKAGES.includes(name),
      )
      // s390x has no libbpf-tools
      for (const name of PACKAGES) {
        for (const pkg of found.filter((one) => one.name === name)) {
          const isThere = await withScratch(undefined, async (root) => {
            const unpacked = unpackDebianPackage(pkg, root).then(() => true)
            if (!(await unpacked.catch(isMissing))) return false
            await extractObjects(root, into)
            return true
          })
          if (isThere) break
        }
      }
    })
    for (const name of (await readdir(directory)).sort()) {
      const path = join(directory, name)
      const bytes = await readFile(path)
      if (openObject(bytes).byteOrder !== byteOrder) continue
      const digest = createHash('sha256').update(bytes).digest('hex')
      if (!objects.has(digest)) objects.set(digest, path)
    }
  }
  return [...objects.values()]
}

/** A mirror may lack a package of its index. */
function isMissing(error: unknown): false {
  if (error instanceof GeneratorError && error.code === 'not_found_upstream') return false
  throw error
}

/** The name of an object, with the release of Debian that it is from. */
export const nameOfObject = (path: string): string =>
  `${basename(path)} of Debian ${path.split('/').at(-2)!.split('-').at(-1)}`
