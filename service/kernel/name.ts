/* A kernel's name as one text and as the segments of a URL path. Decoded segments are checked before any lookup. */
import Type from 'typebox'
import {
  canonicalArch,
  decodeName,
  encodeName,
  type KernelName,
  StoreError,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'

export const Segment = Type.String({ minLength: 1, maxLength: 255 })

/** The path parameters `{distro}/{version}/{arch}/{release}`. */
export const NameParams = Type.Object({
  distro: Segment,
  version: Segment,
  arch: Segment,
  release: Segment,
})

/** Checks the parameters of a path and canonicalizes the architecture. Errors: `invalid_name`. */
export function kernelOf(params: KernelName): KernelName {
  for (const [part, name] of Object.entries(params)) {
    if (/[\p{Cc}/\\]|^\.\.?$/u.test(name)) throw invalidName(part, name)
    try {
      encodeName(name)
    } catch (cause) {
      if (cause instanceof StoreError) throw invalidName(part, name, cause)
      throw cause
    }
  }
  return { ...params, arch: canonicalArch(params.arch) }
}

/** The URL path of a kernel, relative to a route. */
export function pathOf({ distro, version, arch, release }: KernelName): string {
  return [distro, version, arch, release].map(encodeURIComponent).join('/')
}

/** A kernel's name as one text: DISTRO/VERSION/ARCH/RELEASE. Errors: `invalid_key`, as `StoreError`. */
export function nameOf({ distro, version, arch, release }: KernelName): string {
  return [distro, version, arch, release].map(encodeName).join('/')
}

/** Parses DISTRO/VERSION/ARCH/RELEASE; undefined for a text of another form. Errors: `invalid_key`, as `StoreError`. */
export function parseName(text: string): KernelName | undefined {
  const [distro, version, arch, release, ...rest] = text.split('/')
  if (!distro || !version || !arch || !release || rest.length > 0) return undefined
  return {
    distro: decodeName(distro),
    version: decodeName(version),
    arch: canonicalArch(decodeName(arch)),
    release: decodeName(release),
  }
}

/** Characters of an invalid name that the error shows. */
const MAX_SHOWN = 100

function invalidName(part: string, name: string, cause?: StoreError): ServiceError {
  const value = JSON.stringify(name.slice(0, MAX_SHOWN))
  const expected = 'expected a name without control characters, slashes or backslashes'
  const message = `invalid kernel ${part} ${value}: ${cause?.message ?? expected}`
  return new ServiceError('invalid_name', message, { cause })
}
