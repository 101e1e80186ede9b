/* TencentOS Server 2.4, built from CentOS 7 with kernels of its own. */
import { RPM_VMLINUX } from './conventions.ts'
import type { Source } from './source.ts'

/** 19.0006.tl2 is 19-0006 in `uname -r`. */
const REVISION = '(?<major>[0-9]+)[.](?<minor>[0-9.]+)[.]tl[0-9]+'

export const TENCENT_SOURCES: readonly Source[] = [
  {
    id: 'tencentos',
    distro: 'tencentos',
    protocol: 'listing',
    mirror: 'https://mirrors.tencent.com/tlinux',
    versions: {
      '2.4': ['tlinux', 'tlinux-tkernel4'].map((name) => ({
        name,
        url: `{mirror}/{version}/${name}/debuginfo/{arch}/RPMS`,
      })),
    },
    architectures: { x86_64: 'x86_64' },
    packages: [
      { name: 'kernel-debuginfo', revision: REVISION, release: '{version}-{major}-{minor}' },
      {
        name: 'kernel-(?<flavour>tlinux[0-9]+)-debuginfo',
        revision: REVISION,
        release: '{version}-{major}-{flavour}-{minor}',
      },
    ],
    vmlinux: ['boot/vmlinux-{release}', ...RPM_VMLINUX],
  },
]
