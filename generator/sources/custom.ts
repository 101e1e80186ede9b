/* Packages that a user names by file or URL: any of these rules and paths may apply to them. */
import { RPM_IMAGES, RPM_UNSPLIT_IMAGES, RPM_VMLINUX, RPM_VMLINUZ } from './conventions.ts'
import {
  DEBIAN_DEBUG,
  DEBIAN_HEADERS,
  DEBIAN_HEADERS_VMLINUX,
  DEBIAN_IMAGES,
  DEBIAN_VMLINUX,
  DEBIAN_VMLINUZ,
} from './debian.ts'
import { ORACLE_DEBUGINFO } from './oracle.ts'
import type { Source } from './source.ts'
import { SUSE_IMAGES, SUSE_VMLINUX, SUSE_VMLINUZ, suseDebuginfo } from './suse.ts'
import { UBUNTU_DBGSYM } from './ubuntu.ts'

export const CUSTOM_SOURCES: readonly Source[] = [
  {
    id: 'custom',
    distro: 'custom',
    protocol: 'files',
    versions: {},
    architectures: {},
    packages: [...DEBIAN_DEBUG, ...UBUNTU_DBGSYM, ...ORACLE_DEBUGINFO, ...suseDebuginfo('debug')],
    vmlinux: [...DEBIAN_VMLINUX, ...RPM_VMLINUX, ...SUSE_VMLINUX],
    images: [...DEBIAN_IMAGES, ...RPM_IMAGES, ...RPM_UNSPLIT_IMAGES, ...SUSE_IMAGES],
    vmlinuz: [...new Set([...DEBIAN_VMLINUZ, ...RPM_VMLINUZ, ...SUSE_VMLINUZ])],
    headers: DEBIAN_HEADERS,
    headersVmlinux: DEBIAN_HEADERS_VMLINUX,
  },
]
