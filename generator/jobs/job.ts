/*
 * A job: one package, or one file that a user gave, from which a record is to be made. It is plain data with everything
 * that the result depends on, since a worker on another machine may run it.
 */
import { basename } from 'node:path'
import Type from 'typebox'
import { canonicalArch, type KernelName, sha256Of } from '../../storage/index.ts'
import { debNameOf, rpmNameOf } from '../sources/file-name.ts'
import { namingOf, type PackageName } from '../sources/naming.ts'
import { Checksum, type KernelPackage, PackageRole, Trust } from '../sources/source.ts'
import { SOURCES } from '../sources/sources.ts'

/** A job from a queue is untrusted input: each of its parts has a bound. */
const Text = Type.String({ minLength: 1, maxLength: 255 })
const Path = Type.String({ minLength: 1, maxLength: 1024 })

/** The options of a job. */
const JobOptions = {
  /** end the download when vmlinux is complete: the digest is not verified, and the record says `prefix` */
  earlyStop: Type.Optional(Type.Boolean()),
  /**
   * `embedded`: only BTF that the kernel carries itself; `debug`: only pahole's, from debug info (default: the kernel's
   * own where there is any, otherwise pahole's); `headers`: partial BTF, from kernel headers
   */
  from: Type.Optional(
    Type.Union([Type.Literal('embedded'), Type.Literal('debug'), Type.Literal('headers')]),
  ),
  /** record the functions of which some calls are inlined */
  inlinedCalls: Type.Optional(Type.Boolean()),
  /** names of modules whose BTF is wanted; `*` for all */
  modules: Type.Optional(Type.Array(Text, { maxItems: 4096 })),
}

const Single = {
  /** the parts of the name that are known before vmlinux is read */
  kernel: Type.Object({
    distro: Text,
    version: Text,
    arch: Type.Optional(Text),
    release: Type.Optional(Text),
  }),
  /** the parts of the name that the name of a user's file suggests; where vmlinux tells another, vmlinux is right */
  guess: Type.Optional(Type.Object({ arch: Type.Optional(Text), release: Type.Optional(Text) })),
  package: Type.Object({
    name: Text,
    version: Type.String({ maxLength: 255 }),
    url: Type.String({ minLength: 1, maxLength: 4096 }),
    /** bytes */
    size: Type.Optional(Type.Integer({ minimum: 0 })),
    sha256: Type.Optional(Type.String({ pattern: '^[0-9a-f]{64}$' })),
  }),
  /** the digest that the package must have; unknown for files that a user gives */
  checksum: Type.Optional(Checksum),
  /** who vouches for the checksum */
  trust: Trust,
  /** id of the source; its access data open the repository */
  source: Type.Optional(Text),
  /** `tar` and `folder`: kernel headers as the kernel (`kheaders.tar.xz`) or the machine has them */
  format: Type.Union([
    Type.Literal('deb'),
    Type.Literal('rpm'),
    Type.Literal('vmlinux'),
    Type.Literal('tar'),
    Type.Literal('folder'),
  ]),
  /** with `from` headers: further packages with headers of this kernel */
  parts: Type.Optional(
    Type.Array(
      Type.Object(
        {
          name: Text,
          url: Type.String({ minLength: 1, maxLength: 4096 }),
          /** bytes */
          size: Type.Optional(Type.Integer({ minimum: 0 })),
          checksum: Type.Optional(Checksum),
          format: Type.Union([Type.Literal('deb'), Type.Literal('rpm'), Type.Literal('tar')]),
        },
        { additionalProperties: false },
      ),
      { maxItems: 8 },
    ),
  ),
  /** paths of OpenPGP keys; one of them must have signed the header of an .rpm */
  keys: Type.Optional(Type.Array(Path, { maxItems: 16 })),
  /** globs of the paths at which the package may have vmlinux */
  vmlinux: Type.Array(Path, { maxItems: 16 }),
  /**
   * what the package has of its kernel, if that is known; the vmlinux of `headers` has BTF only, and files beside it the
   * kernel's version
   */
  role: Type.Optional(PackageRole),
  ...JobOptions,
}
const STRICT = { additionalProperties: false }

export const Job = Type.Object(
  {
    ...Single,
    /** the packages that are tried in turn if this one is lost, such as an image whose kernel has no BTF */
    fallbacks: Type.Optional(Type.Array(Type.Object(Single, STRICT), { maxItems: 4 })),
  },
  STRICT,
)
export type Job = Type.Static<typeof Job>
export type JobOptions = Pick<Job, keyof typeof JobOptions>

const OPTION_NAMES = Object.keys(JobOptions) as (keyof JobOptions)[]

/** Picks a job's options from a run's. */
export const jobOptionsOf = (options: JobOptions): JobOptions =>
  Object.fromEntries(
    OPTION_NAMES.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]])),
  )

/** What the packages that can serve a job's options have of their kernels. Headers have no modules. */
export function rolesFor({ from, modules = [] }: JobOptions): PackageRole[] {
  if (from === 'debug') return ['debug']
  if (from === 'headers') return ['devel']
  const own: PackageRole[] = modules.length > 0 ? ['image'] : ['headers', 'image']
  return from === 'embedded' ? own : [...own, 'debug']
}

/**
 * The id of a job, 32 hex digits. It is the same for the same package, kernel, options and tool, whatever the mirror.
 */
export function jobIdOf(job: Job, fingerprint: string): string {
  const { distro, version, arch, release } = job.kernel
  const { name, version: packageVersion, url } = job.package
  const options = OPTION_NAMES.map((option) => job[option])
  const file = job.checksum?.hex ?? url
  const identity = [distro, version, arch, release, name, packageVersion, file, options]
  return sha256Of(JSON.stringify([identity, fingerprint])).slice(0, 32)
}

/** The job for a package of a source. */
export function jobOf(from: KernelPackage, options: JobOptions = {}): Job {
  const fallbacks = from.fallbacks?.map((fallback) => singleOf(fallback, options))
  return { ...singleOf(from, options), ...(fallbacks && { fallbacks }) }
}

function singleOf(from: KernelPackage, options: JobOptions): Omit<Job, 'fallbacks'> {
  const { kernel, name, version, url, size, checksum, trust, source, format, keys, vmlinux } = from
  const { parts } = from
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
    ...(parts && { parts: parts.map((part) => ({ ...part })) }),
    vmlinux: [...vmlinux],
    role: from.role,
    ...options,
  }
}

const CUSTOM = SOURCES.get('custom')!
const naming = namingOf([...CUSTOM.packages, ...CUSTOM.images!])
const namingOfHeaders = namingOf(CUSTOM.headers!)
const globsOf = (paths: readonly string[]) => paths.map((path) => path.replaceAll('{release}', '*'))
/** Globs of the paths at which packages have vmlinux or vmlinuz. */
const PATHS = globsOf([...CUSTOM.vmlinux, ...CUSTOM.vmlinuz!])
const PATHS_IN_HEADERS = globsOf(CUSTOM.headersVmlinux!)

/**
 * The job for a file or URL: a .deb, .ddeb or .rpm, or otherwise a bare vmlinux, compressed or not. Parts of the name
 * that `kernel` leaves out come from vmlinux, or from the file's name by the rules of the source `custom`. The
 * architecture may have any of its names.
 */
export function jobOfFile(url: string, kernel: Partial<KernelName>, options: JobOptions = {}): Job {
  const file = fileNameOf(url)
  const rpm = rpmNameOf(file)
  const named = rpm ?? debNameOf(file)
  const version = rpm ? `${rpm.version}-${rpm.revision}` : (named?.version ?? '')
  const isHeaders = named !== undefined && namingOfHeaders(named) !== undefined
  return {
    kernel: kernelOfFile(kernel),
    ...(named && { guess: guessOf(named) }),
    package: { name: named?.name ?? file, version, url },
    trust: 'none',
    format: /\.d?deb$/.test(file) ? 'deb' : /\.rpm$/.test(file) ? 'rpm' : 'vmlinux',
    vmlinux: isHeaders ? PATHS_IN_HEADERS : PATHS,
    ...(isHeaders && { role: 'headers' }),
    ...options,
  }
}

/** Packages that have headers of several kernels; the one of a kernel comes first. */
const SHARED = /-common(-.*)?$|^linux-kbuild-|^linux-headers-[0-9][0-9.-]*$/

/**
 * The job for files, URLs or one folder with the headers of one kernel: packages that together have all of them,
 * `kheaders.tar.xz`, or a folder such as `/lib/modules/RELEASE/build`. Parts of the name that `kernel` leaves out come
 * from the headers.
 */
export function jobOfHeaders(
  urls: readonly string[],
  kernel: Partial<KernelName>,
  options: JobOptions = {},
): Job {
  const files = urls.map((url) => ({ url, ...describeHeaders(url) }))
  const own = files.find(({ name }) => !SHARED.test(name)) ?? files[0]!
  const parts = files.filter((file) => file !== own)
  return {
    kernel: kernelOfFile(kernel),
    package: { name: own.name, version: own.version, url: own.url },
    trust: 'none',
    format: own.format,
    vmlinux: [],
    role: 'devel',
    ...(parts.length > 0 && {
      parts: parts.map(({ name, url, format }) => ({ name, url, format: format as 'deb' })),
    }),
    ...options,
    from: 'headers',
  }
}

/** The name of a file's kernel, as far as it is given. */
function kernelOfFile({ arch, ...given }: Partial<KernelName>) {
  return {
    ...{ distro: CUSTOM.distro, version: 'rolling' },
    ...given,
    ...(arch !== undefined && { arch: canonicalArch(arch) }),
  }
}

function describeHeaders(url: string): Pick<Job, 'format'> & { name: string; version: string } {
  const file = fileNameOf(url)
  const rpm = rpmNameOf(file)
  if (rpm) return { format: 'rpm', name: rpm.name, version: `${rpm.version}-${rpm.revision}` }
  const deb = debNameOf(file)
  if (deb) return { format: 'deb', name: deb.name, version: deb.version }
  const format = /\.tar(\.\w{1,4})?$/.test(file) ? 'tar' : /\.d?eb$/.test(file) ? 'deb' : 'folder'
  return { format, name: file.slice(0, 255) || 'headers', version: '' }
}

function guessOf(named: PackageName & { arch: string }): NonNullable<Job['guess']> {
  const found = naming(named) ?? namingOfHeaders(named)
  const { release, machine = canonicalArch(named.arch) } = found ?? {}
  return { arch: machine, ...(release && { release }) }
}

/** The last part of a path or URL, without the escapes of mirrors and of apt's cache (`1%3a6.12.107-1`). */
function fileNameOf(url: string): string {
  const name = basename(/^https?:/.test(url) ? url.replace(/[?#].*$/s, '') : url)
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}

/** The name of a job's kernel, with placeholders for what is only known from vmlinux. */
export function nameOf({ kernel, guess, package: { name } }: Job): KernelName {
  return { arch: 'unknown', release: name, ...guess, ...kernel }
}
