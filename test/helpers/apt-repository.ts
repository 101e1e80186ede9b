/* An apt repository on disk, signed by a temporary key: valid, or with one fault. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import type { Source } from '../../generator/index.ts'
import type { Signer } from './signer.ts'

export interface RepositoryOptions {
  /** paths of its packages */
  packages?: readonly string[]
  signer: Signer
  suite?: string
  /** the forms of Packages */
  forms?: readonly ('xz' | 'zst' | 'gz' | 'plain')[]
  /** put the index under by-hash only, like a mirror during its update */
  byHash?: boolean
  /** fields of Release that replace the defaults */
  release?: Readonly<Record<string, string>>
  /** changes Release before it is signed */
  edit?: (release: string) => string
  /** further signers of Release */
  others?: readonly Signer[]
}

export interface Repository {
  /** value for `--mirror` */
  url: string
  directory: string
  /** Returns the path of a file in the suite's directory. */
  path(name: string): string
  /** a source with this repository only */
  source: Source
}

const ARCHITECTURE = 'i386'

/** Makes the repository `debian` in a directory. */
export function makeRepository(parent: string, options: RepositoryOptions): Repository {
  const { packages = [], signer, suite = 'bookworm', others = [], edit = (text) => text } = options
  const directory = join(parent, 'debian')
  const path = (name: string) => join(directory, 'dists', suite, name)
  mkdirSync(join(directory, 'pool'), { recursive: true })
  for (const file of packages) copyFileSync(file, join(directory, 'pool', basename(file)))
  const scanned = execFileSync('dpkg-scanpackages', ['--multiversion', 'pool'], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const digests = putIndexes(path(''), scanned, options)
  const fields = { Origin: 'Test', Suite: suite, Components: 'main', ...options.release }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}`)
  const release = edit([...lines, 'SHA256:', ...digests, ''].join('\n'))
  put(path('InRelease'), signer.sign(release, ...others))
  return {
    url: `file://${directory}`,
    directory,
    path,
    source: sourceOf(suite, signer),
  }
}

/** Writes the forms of Packages, and returns their lines in Release. */
function putIndexes(
  directory: string,
  text: Buffer,
  { forms = ['xz', 'plain'], byHash = false }: RepositoryOptions,
): string[] {
  return forms.map((form) => {
    const bytes = compressed(text, form)
    const name = form === 'plain' ? 'Packages' : `Packages.${form}`
    const folder = `main/binary-${ARCHITECTURE}`
    const digest = createHash('sha256').update(bytes).digest('hex')
    put(join(directory, folder, byHash ? `by-hash/SHA256/${digest}` : name), bytes)
    return ` ${digest} ${bytes.length} ${folder}/${name}`
  })
}

function compressed(text: Buffer, form: 'xz' | 'zst' | 'gz' | 'plain'): Buffer {
  if (form === 'plain') return text
  if (form === 'zst') return zstdCompressSync(text)
  return execFileSync(form === 'xz' ? 'xz' : 'gzip', ['--stdout'], { input: text })
}

function sourceOf(suite: string, { keyring }: Signer): Source {
  return {
    id: 'test',
    distro: 'debian',
    protocol: 'apt',
    keyrings: [keyring],
    components: ['main'],
    versions: { 12: [{ url: 'debian', suite }] },
    architectures: { i686: ARCHITECTURE },
    packages: [{ name: 'linux-image-(?<uname>[0-9].*)-dbg', release: '{uname}' }],
    vmlinux: [
      'usr/lib/debug/boot/vmlinux-{release}',
      'usr/lib/debug/lib/modules/{release}/vmlinux',
    ],
    images: [
      { name: 'linux-binary-(?<uname>[0-9].*)', release: '{uname}' },
      { name: 'linux-image-(?<uname>[0-9].*)', except: '.*-dbg', release: '{uname}' },
    ],
    vmlinuz: ['boot/vmlinuz-{release}', 'usr/lib/modules/{release}/vmlinuz'],
    headers: [{ name: 'linux-headers-(?<uname>[0-9].*)', release: '{uname}' }],
    headersVmlinux: ['usr/src/linux-headers-{release}/vmlinux'],
  }
}

function put(path: string, bytes: Uint8Array | string): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, bytes)
}
