/*
 * The manifest of a bundle, as JSON. It lists each kernel with the digests of its member and of its whole BTF, and the
 * tool that generated the BTF; the BPF objects; and the kernels that were left out, with reasons. It is signed like the
 * catalog. It has no timestamp, so equal bundles have equal manifests.
 */
import Type from 'typebox'
import { Check, Errors } from 'typebox/value'
import { DIALECTS } from '../../bpf/index.ts'
import { Kernel, signContent, verifyContent } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { PROFILE_NAMES } from './profile.ts'

export const MANIFEST = 'manifest.json'
export const SIGNATURE = `${MANIFEST}.minisig`

/** The paths of the manifest and its signature beside an archive that does not contain them. */
export const besideOf = (path: string) => ({
  manifest: `${path}.${MANIFEST}`,
  signature: `${path}.${SIGNATURE}`,
})

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

const Content = Type.Object({ sha256: Sha256, size: Type.Integer({ minimum: 0 }) })

const BundledObject = Type.Object({
  name: Type.String(),
  ...Content.properties,
  warnings: Type.Optional(
    Type.Array(Type.String(), {
      description:
        'what the object asks for and minimized BTF cannot give, such as the ids of the kernel',
    }),
  ),
})
export type BundledObject = Type.Static<typeof BundledObject>

const BundledKernel = Type.Object({
  /** path in the archive, without a leading `./` */
  path: Type.String(),
  /** digest and size of the member */
  ...Content.properties,
  kernel: Kernel,
  /** version of the kernel's package */
  package: Type.String(),
  /** digest and size of the kernel's whole BTF */
  btf: Content,
  tool: Type.Object({ name: Type.String(), version: Type.String() }),
  partial: Type.Optional(
    Type.Literal(true, { description: 'the BTF is partial, made from kernel headers' }),
  ),
})
export type BundledKernel = Type.Static<typeof BundledKernel>

export const BundleFinding = Type.Object({
  kernel: Kernel,
  code: Type.Enum(['unsupported', 'ambiguous', 'not_representable', 'damaged'], {
    description:
      '`unsupported`: an object does not work on the kernel; `ambiguous`: builds of one name have different BTF; `not_representable`: the profile cannot hold the kernel; `damaged`: its BTF in the store is damaged',
  }),
  /** file name of the object, for `unsupported` */
  object: Type.Optional(Type.String()),
  message: Type.String(),
  /** whether the kernel is in the bundle nevertheless */
  included: Type.Boolean(),
})
export type BundleFinding = Type.Static<typeof BundleFinding>

export const BundleManifest = Type.Object({
  schema: Type.Literal(1),
  btfmill: Type.String(),
  profile: Type.Enum(PROFILE_NAMES),
  /** the form of all BTF; without it, as it is in the store */
  dialect: Type.Optional(Type.Enum(Object.keys(DIALECTS))),
  objects: Type.Array(BundledObject),
  kernels: Type.Array(BundledKernel),
  findings: Type.Array(BundleFinding),
  /** number of further findings, which are not listed */
  findingsOmitted: Type.Optional(Type.Integer({ minimum: 1 })),
})
export type BundleManifest = Type.Static<typeof BundleManifest>

export const encodeManifest = (manifest: BundleManifest): Buffer =>
  Buffer.from(`${JSON.stringify(manifest, undefined, 1)}\n`)

/** Parses and validates a manifest. Errors: `invalid_bundle`. */
export function decodeManifest(bytes: Uint8Array): BundleManifest {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'))
    if (Check(BundleManifest, value)) return value
    const [first] = Errors(BundleManifest, value)
    throw new Error(`${first?.instancePath} ${first?.message}`)
  } catch (cause) {
    const { message } = cause as Error
    throw new ServiceError('invalid_bundle', `invalid manifest: ${message}`, { cause })
  }
}

/** Returns the minisign signature of a manifest. Errors: `invalid_key`. */
export const signManifest = (bytes: Uint8Array, secretKey: string): Buffer =>
  Buffer.from(signContent(bytes, secretKey, `file:${MANIFEST}`))

/** Verifies the minisign signature of a manifest. Errors: `invalid_key`, `invalid_signature`. */
export function verifyManifest(bytes: Uint8Array, signature: Uint8Array, publicKey: string): void {
  verifyContent(bytes, Buffer.from(signature).toString('utf8'), publicKey)
}
