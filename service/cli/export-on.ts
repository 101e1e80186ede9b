/*
 * `btfmill export` on a service, which makes the bundle. The archive is compared with its manifest before it takes its
 * place: every member has the digest that the manifest lists.
 */
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Check } from 'typebox/value'
import type { Dialect } from '../../bpf/index.ts'
import { type BundleResult, fileNameOf } from '../bundle/bundle.ts'
import { BundleFinding, type BundleManifest, decodeManifest } from '../bundle/manifest.ts'
import type { ObjectFile } from '../bundle/member.ts'
import { type BundlePolicy, PROFILES, type ProfileName } from '../bundle/profile.ts'
import { verifyBundle } from '../bundle/verify.ts'
import type { RemoteServer } from '../client/remote.ts'
import { ServiceError } from '../error.ts'
import { nameOf } from '../kernel/name.ts'
import { partialWarning, replace, type WrittenBundle, warn, writeBeside } from './bundle-file.ts'
import { type FilterOptions, filterOf } from './input.ts'
import { explainNoKernel } from './sweep-on.ts'

interface RemoteBundleOptions extends FilterOptions {
  profile: ProfileName
  output?: string
  unsupported: BundlePolicy
  zstd?: boolean
  dialect?: Dialect
  partial?: boolean
}

/**
 * Has a service make a bundle, and writes it. Errors: `invalid_bundle` if it differs from its manifest; those of
 * `RemoteServer` and of `Bundle.open`.
 */
export async function makeOn(
  server: RemoteServer,
  objects: readonly ObjectFile[],
  options: RemoteBundleOptions,
): Promise<WrittenBundle> {
  const { profile, unsupported, zstd = false, dialect, partial } = options
  const query = {
    ...{ ...filterOf(options), profile, unsupported, zstd },
    ...(dialect && { dialect }),
    ...(partial && { partial: 'allow' }),
  }
  const manifest = await server
    .request('v1/bundles', { query: { ...query, part: 'manifest' }, objects }, (bytes) => bytes)
    .catch(async (error) => {
      await explainNoKernel(server, options, error)
      throw withFindings(server, error)
    })
  const decoded = decodeManifest(manifest)
  const ofObjects = decoded.objects.flatMap(({ name, warnings = [] }) =>
    warnings.map((text) => `${name}: ${text}`),
  )
  const partials = decoded.kernels.filter((one) => one.partial).map(({ kernel }) => kernel)
  warn([...ofObjects, ...partialWarning(partials)])
  const download = async (path: string) => {
    await pipeline(
      server.bytes('v1/bundles', { query, objects }),
      createWriteStream(path, { flush: true }),
    )
    await compare(path, manifest)
  }
  const result = resultOf(decoded, manifest)
  const path = options.output ?? fileNameOf({ profile, zstd })
  if (path === '-') await throughFile(download)
  else {
    await replace(path, async (temporary) => {
      await download(temporary)
      if (PROFILES[profile].manifest === 'beside') await writeBeside(path, result)
    })
  }
  return { result, path }
}

/** Errors: `invalid_bundle`. */
async function compare(path: string, manifest: Buffer): Promise<void> {
  const { readTree } = await import('../../generator/index.ts')
  const { problems } = await verifyBundle(
    readTree(path, () => true),
    { manifest },
  )
  const [first] = problems
  if (!first) return
  const message = `the bundle differs from its manifest: ${first.path} ${first.message}`
  throw new ServiceError('invalid_bundle', message)
}

/** Writes a file to standard output once `write` has written and checked it. */
async function throughFile(write: (path: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'btfmill-'))
  try {
    const path = join(directory, 'bundle')
    await write(path)
    await pipeline(createReadStream(path), process.stdout)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

function resultOf(manifest: BundleManifest, bytes: Buffer): BundleResult {
  const { kernels, findings, findingsOmitted = 0 } = manifest
  const names = (of: readonly { kernel: Parameters<typeof nameOf>[0] }[]) =>
    new Set(of.map(({ kernel }) => nameOf(kernel))).size
  return {
    manifest: bytes,
    signature: undefined,
    kernels: names(kernels),
    leftOut: names(findings.filter(({ included }) => !included)),
    findings,
    findingsOmitted,
  }
}

/** The error of a bundle that would not be whole, with findings that can be printed. */
function withFindings(server: RemoteServer, error: unknown): unknown {
  if (!(error instanceof ServiceError) || error.code !== 'unsupported') return error
  const { findings } = error.details
  const isList = Array.isArray(findings) && findings.every((one) => Check(BundleFinding, one))
  return isList ? error : server.invalid('its findings are not those of a bundle')
}
