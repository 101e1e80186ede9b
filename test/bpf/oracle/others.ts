/*
 * CO-RE objects of other projects, from Debian's packages. bcc's libbpf tools, xdp-tools and PCP have them in their
 * programs: `bpftool gen skeleton` puts the whole object into the read-only data. cilium/ebpf has test data in both
 * byte orders. None of them is committed.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { memorySource, openElf } from '../../../bpf/index.ts'
import { ORACLE_CACHE, unpackPackages } from './apt.ts'

const PACKAGES = ['libbpf-tools', 'xdp-tools', 'pcp', 'golang-github-cilium-ebpf-dev']

const MACHINE_BPF = 247
const SHT_NOBITS = 8
const MAGIC = Buffer.from('\x7fELF', 'latin1')

/** The paths of all objects with `.BTF.ext` in these packages, below the cache. Downloads the packages once. */
export async function objectsOfOthers(): Promise<string[]> {
  const root = await unpackPackages(PACKAGES, 'others')
  return extractObjects(root, join(ORACLE_CACHE, 'objects'))
}

/** Writes all objects with `.BTF.ext` in the files below `root` into a directory, and returns their paths. */
export async function extractObjects(root: string, directory: string): Promise<string[]> {
  await mkdir(directory, { recursive: true })
  const objects = new Map<string, Buffer>()
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const found = embeddedObjects(await readFile(join(entry.parentPath, entry.name)))
    for (const { offset, object } of found) {
      if (hasExtension(object)) objects.set(`${entry.name}@${offset}.o`, object)
    }
  }
  for (const [name, object] of objects) await writeFile(join(directory, name), object)
  return [...objects.keys()].sort().map((name) => join(directory, name))
}

/** All valid BPF objects in the bytes of a file, with their offsets. */
function embeddedObjects(file: Buffer): { offset: number; object: Buffer }[] {
  const found: { offset: number; object: Buffer }[] = []
  for (let at = file.indexOf(MAGIC); at >= 0; at = file.indexOf(MAGIC, at + 1)) {
    const size = sizeOfObject(file.subarray(at))
    if (size !== undefined) found.push({ offset: at, object: file.subarray(at, at + size) })
  }
  return found
}

/** The bytes of an object that begins here, to the end of its last section or its section table. */
function sizeOfObject(bytes: Buffer): number | undefined {
  if (bytes.length < 64 || bytes[4] !== 2) return undefined
  const little = bytes[5] === 1
  const half = (at: number) => (little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at))
  const long = (at: number) => (little ? bytes.readBigUInt64LE(at) : bytes.readBigUInt64BE(at))
  if (half(18) !== MACHINE_BPF) return undefined
  const table = Number(long(40)) + half(58) * half(60)
  if (table > bytes.length) return undefined
  const ends = openElf(memorySource(bytes)).sections.map((section) =>
    section.type === SHT_NOBITS ? 0 : section.offset + section.size,
  )
  return Math.max(table, ...ends)
}

function hasExtension(object: Buffer): boolean {
  return openElf(memorySource(object)).section('.BTF.ext') !== undefined
}
