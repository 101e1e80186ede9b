/* An rpm-md repository on disk, made by createrepo_c: valid, or with one fault. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { Signer } from './signer.ts'

export interface RpmRepositoryOptions {
  /** paths of its packages */
  packages?: readonly string[]
  /** createrepo_c of Debian 12 does not support zst, so the XML is compressed here */
  compression?: 'gz' | 'bz2' | 'xz' | 'zst'
  /** forms of the primary index */
  form?: 'xml' | 'sqlite' | 'both'
  /** RPM's name of the hash algorithm */
  checksum?: 'sha' | 'sha256' | 'sha384' | 'sha512'
  /** signer of repomd.xml */
  signer?: Signer
  /** path before the names of packages in the index, as createrepo_c's --location-prefix */
  prefix?: string
}

/** Makes a repository in a directory, which is created if it does not exist. */
export function makeRpmRepository(directory: string, options: RpmRepositoryOptions = {}): void {
  const { packages = [], compression = 'gz', form = 'both', checksum = 'sha256', prefix } = options
  const folder = join(directory, prefix === undefined ? 'Packages' : '')
  mkdirSync(folder, { recursive: true })
  for (const file of packages) copyFileSync(file, join(folder, basename(file)))
  const made = compression === 'zst' ? 'gz' : compression
  const database = form === 'xml' ? '--no-database' : '--database'
  const args = [database, '--general-compress-type', made, '--checksum', checksum, '--quiet']
  if (prefix !== undefined) args.push('--location-prefix', prefix)
  execFileSync('createrepo_c', [...args, directory], { stdio: 'pipe' })
  if (compression === 'zst') recompress(directory)
  if (form === 'sqlite') editRepomd(directory, (text) => text.replace(dataOf('primary'), ''))
  if (options.signer) signRepomd(directory, options.signer)
}

/** Matches the element of an index in repomd.xml. */
const dataOf = (type: string): RegExp => new RegExp(`<data type="${type}">.*?</data>\\s*`, 's')

export const repomdOf = (directory: string): string => join(directory, 'repodata/repomd.xml')

/** Changes repomd.xml, which makes its signature invalid. */
export function editRepomd(directory: string, edit: (text: string) => string): void {
  const [path, text] = [repomdOf(directory), readFileSync(repomdOf(directory), 'utf8')]
  const edited = edit(text)
  if (edited === text) throw new Error('the edit changed nothing')
  writeFileSync(path, edited)
}

export function signRepomd(directory: string, signer: Signer): void {
  writeFileSync(`${repomdOf(directory)}.asc`, signer.detach(readFileSync(repomdOf(directory))))
}

/** The path of the index whose file name contains `part`. */
export function indexOf(directory: string, part: string): string {
  const folder = join(directory, 'repodata')
  const name = readdirSync(folder).find((file) => file.includes(part))
  if (!name) throw new Error(`no index called ${part} in ${folder}`)
  return join(folder, name)
}

/** Replaces primary.xml, and updates its digest in repomd.xml. */
export function replacePrimary(directory: string, bytes: Uint8Array, name: string): void {
  rmSync(indexOf(directory, 'primary.xml'))
  writeFileSync(join(directory, 'repodata', name), bytes)
  const hex = createHash('sha256').update(bytes).digest('hex')
  editRepomd(directory, (text) =>
    text.replace(
      dataOf('primary'),
      `<data type="primary"><checksum type="sha256">${hex}</checksum>
       <location href="repodata/${name}"/><size>${bytes.length}</size></data>`,
    ),
  )
}

/** Changes primary.xml, and updates its digest in repomd.xml. */
export function editPrimary(directory: string, edit: (text: string) => string): void {
  const [path, args] = [indexOf(directory, 'primary.xml'), ['--decompress', '--stdout']]
  const text = execFileSync('gzip', [...args, path]).toString()
  const edited = edit(text)
  if (edited === text) throw new Error('the edit changed nothing')
  replacePrimary(directory, gzipSync(edited), 'x-primary.xml.gz')
}

/** Compresses primary.xml with zstd, as newer versions of createrepo_c do. */
function recompress(directory: string): void {
  const xml = execFileSync('gzip', ['--decompress', '--stdout', indexOf(directory, 'primary.xml')])
  replacePrimary(directory, zstdCompressSync(xml), 'primary.xml.zst')
}
