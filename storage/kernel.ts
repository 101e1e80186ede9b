import Type from 'typebox'

/** A kernel's name: what an agent knows of itself without privileges. */
export const KernelName = Type.Object({
  /** os-release ID, lower case */
  distro: Type.String({ minLength: 1 }),
  /** os-release VERSION_ID; the codename, else `rolling`, where there is none */
  version: Type.String({ minLength: 1 }),
  /** as `uname -m` says it */
  arch: Type.String({ minLength: 1 }),
  /** `uname -r` */
  release: Type.String({ minLength: 1 }),
})
export type KernelName = Type.Static<typeof KernelName>

/** A kernel with what tells its builds apart. */
export const Kernel = Type.Object({
  ...KernelName.properties,
  /** hex of the GNU build-id note */
  buildId: Type.Optional(Type.String({ pattern: '^(?:[0-9a-f]{2}){1,64}$' })),
  /** `uname -v`: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.190-1 (2026-10-02)` */
  unameVersion: Type.Optional(Type.String()),
})
export type Kernel = Type.Static<typeof Kernel>

/** Which kernels a command or request is about; the same everywhere. `release` is a glob. */
export interface KernelFilter {
  distro?: string
  version?: string
  arch?: string
  release?: string
}
