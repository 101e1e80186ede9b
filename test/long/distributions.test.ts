/*
 * Every row of the table from its repository to the catalog, with a real kernel: Debian's for ARM, as small as any, in the
 * place and under the names that the distribution uses.
 */
import { tmpdir } from 'node:os'
import t from 'tap'
import { tryDistributions } from '../helpers/distributions.ts'
import { realVmlinux, renamed } from './vmlinux.ts'

const ARCH = 'armv5tel'
const vmlinux = await realVmlinux(ARCH)
t.comment(`a kernel of ${ARCH}, unpacked below ${tmpdir()}`)

await tryDistributions(t, {
  arch: () => ARCH,
  make: (path, release) => renamed(vmlinux, path, release),
})
