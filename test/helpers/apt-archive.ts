/* Suites of an apt archive on disk, made by apt-ftparchive (apt-utils), as archives do. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Signer } from './signer.ts'

export interface SuiteOptions {
  suite: string
  /** Debian's architecture name */
  architecture: string
  /** paths of packages by component */
  components: Readonly<Record<string, readonly string[]>>
  signer: Signer
  /** compression of Packages */
  compression?: 'xz' | 'gzip' | 'zstd'
  validUntil?: string
  /** sign as archives did before InRelease: Release and Release.gpg (default: InRelease) */
  detached?: boolean
}

/** Adds a suite to the archive in a directory. */
export function makeSuite(directory: string, options: SuiteOptions): void {
  const {
    suite,
    architecture,
    components,
    signer,
    compression = 'xz',
    validUntil,
    detached,
  } = options
  const dist = join(directory, 'dists', suite)
  for (const [component, packages] of Object.entries(components)) {
    const pool = `pool/${suite}/${component}`
    mkdirSync(join(directory, pool), { recursive: true })
    for (const file of packages) copyFileSync(file, join(directory, pool, basename(file)))
    const index = `dists/${suite}/${component}/binary-${architecture}`
    mkdirSync(join(directory, index), { recursive: true })
    const config = join(directory, 'generate.conf')
    writeFileSync(
      config,
      `Dir::ArchiveDir "${directory}";
       BinDirectory "${pool}" {
         Packages "${index}/Packages";
         Packages::Compress "${compression}";
         Packages::Extensions ".deb .ddeb";
       }`,
    )
    execFileSync('apt-ftparchive', ['--quiet', 'generate', config], {
      cwd: directory,
      stdio: 'pipe',
    })
    rmSync(config)
  }
  const fields = {
    Origin: 'Test',
    Suite: suite,
    Components: Object.keys(components).join(' '),
    Architectures: architecture,
    ...(validUntil && { 'Valid-Until': validUntil }),
  }
  const settings = Object.entries(fields).flatMap(([name, value]) => [
    '-o',
    `APT::FTPArchive::Release::${name}=${value}`,
  ])
  const release = execFileSync('apt-ftparchive', [...settings, 'release', dist])
  const files = detached
    ? { Release: release, 'Release.gpg': signer.detach(release) }
    : { InRelease: signer.sign(release.toString()) }
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(dist, name), bytes)
}
