/* A kernel's name as text and as the segments of an address: what was decoded is checked before anything is looked up. */
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

/** `{distro}/{version}/{arch}/{release}` */
export const NameParams = Type.Object({
  distro: Segment,
  version: Segment,
  arch: Segment,
  release: Segment,
})

/** The kernel that an address names, by canonical architecture. Errors: `invalid_name`. */
export function kernelOf(params: KernelName): KernelName {
  for (const [what, name] of Object.entries(params)) {
    if (/[\p{Cc}/\\]|^\.\.?$/u.test(name)) throw invalid(what)
    try {
      encodeName(name)
    } catch (cause) {
      if (cause instanceof StoreError) throw invalid(what)
      throw cause
    }
  }
  return { ...params, arch: canonicalArch(params.arch) }
}

/** The path of a kernel below a route. */
export function pathOf({ distro, version, arch, release }: KernelName): string {
  return [distro, version, arch, release].map(encodeURIComponent).join('/')
}

/** A kernel's name as one text, DISTRO/VERSION/ARCH/RELEASE. */
export function nameOf({ distro, version, arch, release }: KernelName): string {
  return [distro, version, arch, release].map(encodeName).join('/')
}

/** The kernel that such a text names; undefined where it has another form. Errors: `invalid_key`. */
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

function invalid(what: string): ServiceError {
  return new ServiceError('invalid_name', `that is no name of a kernel's ${what}`)
}
