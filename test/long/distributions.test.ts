/*
 * Every row of the source table, from its repository to the catalog, with a real kernel: Debian's for ARM, one of the
 * smallest, under the paths and names that the distribution uses.
 */
import { tmpdir } from 'node:os'
import t from 'tap'
import { tryDistributions } from '../helpers/distributions.ts'
import { realVmlinux, renamed } from './vmlinux.ts'

const ARCH = 'armv5tel'
const vmlinux = await realVmlinux(ARCH)
t.comment(`kernel for ${ARCH}, unpacked below ${tmpdir()}`)

await tryDistributions(t, {
  arch: () => ARCH,
  make: (path, release) => renamed(vmlinux, path, release),
})
