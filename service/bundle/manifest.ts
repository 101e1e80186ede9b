/*
 * What is in a bundle, as JSON: each kernel with the digest of its member, of the BTF that was made of, and what made
 * that; the objects it was minimised for; what was left out, and why. It is signed as the catalog is, and says nothing
 * of the time: equal bundles have equal manifests.
 */
import Type from 'typebox'
import { Check, Errors } from 'typebox/value'
import { Kernel, signContent, verifyContent } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { PROFILE_NAMES } from './profile.ts'

export const MANIFEST = 'manifest.json'
export const SIGNATURE = `${MANIFEST}.minisig`

/** Where the manifest of an archive is that has none inside, and its signature. */
export const besideOf = (path: string) => ({
  manifest: `${path}.${MANIFEST}`,
  signature: `${path}.${SIGNATURE}`,
})

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

/** Bytes by their digest. */
const Content = Type.Object({ sha256: Sha256, size: Type.Integer({ minimum: 0 }) })

const BundledObject = Type.Object({ name: Type.String(), ...Content.properties })
export type BundledObject = Type.Static<typeof BundledObject>

const BundledKernel = Type.Object({
  /** in the archive, without a leading `./` */
  path: Type.String(),
  /** of the member's bytes */
  ...Content.properties,
  kernel: Kernel,
  /** the version of its package */
  package: Type.String(),
  /** the kernel's whole BTF */
  btf: Content,
  tool: Type.Object({ name: Type.String(), version: Type.String() }),
})
export type BundledKernel = Type.Static<typeof BundledKernel>

export const BundleFinding = Type.Object({
  kernel: Kernel,
  code: Type.Enum(['unsupported', 'ambiguous', 'not_representable', 'damaged'], {
    description:
      'an object does not work there; builds of one name differ; the profile cannot hold it; its BTF is not whole',
  }),
  /** of `unsupported` */
  object: Type.Optional(Type.String()),
  message: Type.String(),
  /** whether it is in the bundle all the same */
  included: Type.Boolean(),
})
export type BundleFinding = Type.Static<typeof BundleFinding>

export const BundleManifest = Type.Object({
  schema: Type.Literal(1),
  btfmill: Type.String(),
  profile: Type.Enum(PROFILE_NAMES),
  objects: Type.Array(BundledObject),
  kernels: Type.Array(BundledKernel),
  findings: Type.Array(BundleFinding),
})
export type BundleManifest = Type.Static<typeof BundleManifest>

export const encodeManifest = (manifest: BundleManifest): Buffer =>
  Buffer.from(`${JSON.stringify(manifest, undefined, 1)}\n`)

/** Errors: `invalid_bundle`. */
export function decodeManifest(bytes: Uint8Array): BundleManifest {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'))
    if (Check(BundleManifest, value)) return value
    const [first] = Errors(BundleManifest, value)
    throw new Error(`${first?.instancePath} ${first?.message}`)
  } catch (cause) {
    const why = (cause as Error).message
    throw new ServiceError('invalid_bundle', `its manifest does not read: ${why}`, { cause })
  }
}

/** Errors: `invalid_key`. */
export const signManifest = (bytes: Uint8Array, secretKey: string): Buffer =>
  Buffer.from(signContent(bytes, secretKey, `file:${MANIFEST}`))

/** Errors: `invalid_key`, `invalid_signature`. */
export function verifyManifest(bytes: Uint8Array, signature: Uint8Array, publicKey: string): void {
  verifyContent(bytes, Buffer.from(signature).toString('utf8'), publicKey)
}
