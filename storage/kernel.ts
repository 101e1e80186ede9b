import Type from 'typebox'

/** A kernel's name: the four values that an agent can read about itself without privileges. */
export const KernelName = Type.Object({
  /** os-release ID, lower case */
  distro: Type.String({ minLength: 1 }),
  /** os-release VERSION_ID; without it the codename, and without that `rolling` */
  version: Type.String({ minLength: 1 }),
  /** `uname -m` */
  arch: Type.String({ minLength: 1 }),
  /** `uname -r` */
  release: Type.String({ minLength: 1 }),
})
export type KernelName = Type.Static<typeof KernelName>

/** A kernel's name with the values that tell its builds apart. */
export const Kernel = Type.Object({
  ...KernelName.properties,
  /** hex of the GNU build-id note */
  buildId: Type.Optional(Type.String({ pattern: '^(?:[0-9a-f]{2}){1,64}$' })),
  /** `uname -v`: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.190-1 (2026-10-02)` */
  unameVersion: Type.Optional(Type.String()),
})
export type Kernel = Type.Static<typeof Kernel>

/** The value that a part of a name must have, or several, of which it must have one. */
export type Wanted = string | readonly string[]

/** Selects kernels, in the same way in all commands and requests. `release` has globs. */
export interface KernelFilter {
  distro?: Wanted
  version?: Wanted
  arch?: Wanted
  release?: Wanted
}

/** The values of one part of a filter, as a list. */
export const valuesOf = (wanted: Wanted): readonly string[] =>
  typeof wanted === 'string' ? [wanted] : wanted
