/* Where a distribution keeps its kernels with debug info, as data: `sources.ts` has the table, users may add rows. */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { GeneratorError } from './error.ts'

const Suite = Type.Object({
  /** the repository, as the mirror names it */
  repository: Type.String({ pattern: '^[a-z0-9-]+$' }),
  suite: Type.String({ pattern: '^[a-z0-9][a-z0-9./-]*$' }),
})
export type Suite = Type.Static<typeof Suite>

export const AptSource = Type.Object({
  id: Type.String({ pattern: '^[a-z0-9-]+$' }),
  /** os-release ID */
  distro: Type.String({ minLength: 1 }),
  protocol: Type.Literal('apt'),
  /** path of the keyring its indexes are signed with */
  keyring: Type.String({ pattern: '^/' }),
  component: Type.String({ pattern: '^[a-z-]+$' }),
  /** the suites of each VERSION_ID */
  versions: Type.Record(Type.String(), Type.Array(Suite, { minItems: 1 })),
  /** the distribution's names of architectures by `uname -m` name */
  architectures: Type.Record(Type.String(), Type.String({ pattern: '^[a-z0-9]+$' })),
  /** what a package with debug info is called: a regular expression whose first group is `uname -r` */
  packages: Type.String(),
  /** paths of vmlinux in it, `{release}` for `uname -r`, whichever comes first in the archive */
  vmlinux: Type.Array(Type.String(), { minItems: 1 }),
  /** what a package with the kernel itself is called, as `packages`: `--embedded` takes BTF from there */
  images: Type.Optional(Type.String()),
  /** paths of vmlinuz in it, as `vmlinux` */
  vmlinuz: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
})
export type AptSource = Type.Static<typeof AptSource>

export type Source = AptSource

const source = Compile(AptSource)

/** Checks what claims to be a source. Errors: `bad_index`, with what is wrong. */
export function parseSource(value: unknown): Source {
  if (source.Check(value)) return value
  const [first] = source.Errors(value)
  throw new GeneratorError(
    'bad_index',
    `a source is not as it should be: ${first?.instancePath} ${first?.message}`,
  )
}

/** A package that a source offers, with the kernel whose BTF it can give. */
export interface KernelPackage {
  source: string
  kernel: { distro: string; version: string; arch: string; release: string }
  name: string
  version: string
  url: string
  /** bytes and hex SHA-256, as the signed index has them */
  size: number
  sha256: string
  /** what kind of archive it is; else a .deb */
  format?: 'deb' | 'rpm'
  /** path of the OpenPGP keys, binary or armoured, of which one must have signed the package's own header */
  key?: string
  /** paths of vmlinux in it */
  vmlinux: readonly string[]
}
