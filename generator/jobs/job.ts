/*
 * A job: one package, or one file that somebody gave, on its way to being a record. It is plain data, and says all that
 * its doing depends on, since it may be done elsewhere.
 */
import { basename } from 'node:path'
import Type from 'typebox'
import { canonicalArch, type KernelName, sha256Of } from '../../storage/index.ts'
import { debNameOf, rpmNameOf } from '../sources/file-name.ts'
import { namingOf } from '../sources/naming.ts'
import { Checksum, type KernelPackage, Trust } from '../sources/source.ts'
import { SOURCES } from '../sources/sources.ts'

/** One that comes from a queue is someone else's: every part of it has a bound. */
const Text = Type.String({ minLength: 1, maxLength: 255 })
const Path = Type.String({ minLength: 1, maxLength: 1024 })

/** How a package is to be done. */
const JobOptions = {
  /** end the download when vmlinux is whole; its digest is never compared then, and the record says `prefix` */
  earlyStop: Type.Optional(Type.Boolean()),
  /** take the BTF that the kernel carries itself, where it does */
  embedded: Type.Optional(Type.Boolean()),
  /** names of modules whose BTF is wanted, too; `*` for all */
  modules: Type.Optional(Type.Array(Text, { maxItems: 4096 })),
}

const Single = {
  /** as far as it is known before the image is read */
  kernel: Type.Object({
    distro: Text,
    version: Text,
    arch: Type.Optional(Text),
    release: Type.Optional(Text),
  }),
  package: Type.Object({
    name: Text,
    version: Type.String({ maxLength: 255 }),
    url: Type.String({ minLength: 1, maxLength: 4096 }),
    /** bytes */
    size: Type.Optional(Type.Integer({ minimum: 0 })),
    sha256: Type.Optional(Type.String({ pattern: '^[0-9a-f]{64}$' })),
  }),
  /** what the package's digest must be, and by whom that is; of what a user gives nobody knows */
  checksum: Type.Optional(Checksum),
  trust: Trust,
  /** id of the source whose access opens the repository */
  source: Type.Optional(Text),
  format: Type.Union([Type.Literal('deb'), Type.Literal('rpm'), Type.Literal('vmlinux')]),
  /** paths of OpenPGP keys, of which one must have signed the header of an .rpm */
  keys: Type.Optional(Type.Array(Path, { maxItems: 16 })),
  /** globs of the paths that vmlinux may have in the package */
  vmlinux: Type.Array(Path, { maxItems: 16 }),
  ...JobOptions,
}
const STRICT = { additionalProperties: false }

export const Job = Type.Object(
  {
    ...Single,
    /** what is done where the package has a kernel without BTF of its own */
    fallback: Type.Optional(Type.Object(Single, STRICT)),
  },
  STRICT,
)
export type Job = Type.Static<typeof Job>
export type JobOptions = Pick<Job, keyof typeof JobOptions>

const OPTION_NAMES = Object.keys(JobOptions) as (keyof JobOptions)[]

/** Those of a run's options that are a job's. */
export const jobOptionsOf = (options: JobOptions): JobOptions =>
  Object.fromEntries(
    OPTION_NAMES.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]])),
  )

/**
 * What a job is known by, 32 hex digits: whoever plans the same package for the same kernel, by the same tool and in the
 * same way, plans the same job, from whichever mirror.
 */
export function jobIdOf(job: Job, fingerprint: string): string {
  const { distro, version, arch, release } = job.kernel
  const { name, version: packageVersion, url } = job.package
  const options = OPTION_NAMES.map((option) => job[option])
  const file = job.checksum?.hex ?? url
  const what = [distro, version, arch, release, name, packageVersion, file, options]
  return sha256Of(JSON.stringify([what, fingerprint])).slice(0, 32)
}

/** The job that a source's package makes. */
export function jobOf(from: KernelPackage, options: JobOptions = {}): Job {
  const { fallback } = from
  return { ...singleOf(from, options), ...(fallback && { fallback: singleOf(fallback, options) }) }
}

function singleOf(from: KernelPackage, options: JobOptions): Omit<Job, 'fallback'> {
  const { kernel, name, version, url, size, checksum, trust, source, format, keys, vmlinux } = from
  return {
    kernel,
    package: {
      name,
      version,
      url,
      ...(size !== undefined && { size }),
      ...(checksum?.algorithm === 'sha256' && { sha256: checksum.hex }),
    },
    ...(checksum && { checksum }),
    trust,
    source,
    format,
    ...(keys && { keys: [...keys] }),
    vmlinux: [...vmlinux],
    ...options,
  }
}

const CUSTOM = SOURCES.get('custom')!
const naming = namingOf([...CUSTOM.packages, ...CUSTOM.images!])
/** Where packages have vmlinux, or what boot loaders take. */
const PATHS = [...CUSTOM.vmlinux, ...CUSTOM.vmlinuz!].map((path) =>
  path.replaceAll('{release}', '*'),
)

/**
 * The job that a file or URL makes: a .deb, .ddeb or .rpm, else a bare vmlinux, compressed or not. What `kernel`
 * leaves open the file's name may tell by the rules of the source `custom`, else the image itself.
 */
export function jobOfFile(url: string, kernel: Partial<KernelName>, options: JobOptions = {}): Job {
  const file = fileNameOf(url)
  const rpm = rpmNameOf(file)
  const named = rpm ?? debNameOf(file)
  const version = rpm ? `${rpm.version}-${rpm.revision}` : (named?.version ?? '')
  const release = named && naming(named)?.release
  return {
    kernel: {
      distro: CUSTOM.distro,
      version: 'rolling',
      ...(named && { arch: canonicalArch(named.arch) }),
      ...(release && { release }),
      ...kernel,
    },
    package: { name: named?.name ?? file, version, url },
    trust: 'none',
    format: /\.d?deb$/.test(file) ? 'deb' : /\.rpm$/.test(file) ? 'rpm' : 'vmlinux',
    vmlinux: [...PATHS],
    ...options,
  }
}

/** The last part of a path or URL, without the escapes that mirrors and apt's cache write (`1%3a6.12.107-1`). */
function fileNameOf(url: string): string {
  const name = basename(/^https?:/.test(url) ? url.replace(/[?#].*$/s, '') : url)
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}

/** The name a job's kernel goes by while the image has not told more. */
export function nameOf({ kernel, package: { name } }: Job): KernelName {
  return { arch: 'unknown', release: name, ...kernel }
}
