/* Oracle Linux: the Red Hat compatible kernel and the Unbreakable Enterprise Kernel (UEK). */
import {
  perVersion,
  RPM_ARCHITECTURES,
  RPM_IMAGES,
  RPM_VMLINUX,
  RPM_VMLINUZ,
  rpmKeys,
} from './conventions.ts'
import type { NamingRule } from './naming.ts'
import type { Source } from './source.ts'

// the Red Hat compatible kernel, and UEK
export const ORACLE_DEBUGINFO: NamingRule[] = [
  { name: 'kernel(-uek)?-debuginfo', release: '{version}-{revision}.{arch}' },
]

export const ORACLE_SOURCES: readonly Source[] = [
  {
    id: 'ol',
    distro: 'ol',
    protocol: 'listing',
    mirror: 'https://oss.oracle.com',
    keyrings: rpmKeys('oraclelinux', 'RPM-GPG-KEY-oracle', 'RPM-GPG-KEY-oracle-ol{version}'),
    versions: perVersion(['7', '8', '9'], (version) => [
      { name: version, url: '{mirror}/ol{version}/debuginfo' },
    ]),
    architectures: RPM_ARCHITECTURES,
    packages: ORACLE_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
  },
  {
    id: 'ol-images',
    distro: 'ol',
    protocol: 'rpm-md',
    mirror: 'https://yum.oracle.com/repo/OracleLinux',
    keyrings: rpmKeys('oraclelinux', 'RPM-GPG-KEY-oracle', 'RPM-GPG-KEY-oracle-ol{version}'),
    versions: perVersion(['8', '9'], () => [
      { name: 'baseos', url: '{mirror}/OL{version}/baseos/latest/{arch}', images: true },
      { name: 'uekr7', url: '{mirror}/OL{version}/UEKR7/{arch}', images: true },
    ]),
    architectures: RPM_ARCHITECTURES,
    packages: ORACLE_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
    images: RPM_IMAGES,
    vmlinuz: RPM_VMLINUZ,
  },
]
