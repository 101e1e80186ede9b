/* Alibaba Cloud Linux and OpenAnolis, its community edition. */
import {
  RPM_ARCHITECTURES,
  RPM_DEBUGINFO,
  RPM_IMAGES,
  RPM_UNSPLIT_IMAGES,
  RPM_VMLINUX,
  RPM_VMLINUZ,
  rpmKeys,
} from './conventions.ts'
import type { Source } from './source.ts'

export const ALIBABA_SOURCES: readonly Source[] = [
  {
    id: 'alinux',
    distro: 'alinux',
    protocol: 'rpm-md',
    mirror: 'https://mirrors.aliyun.com/alinux',
    keyrings: rpmKeys('alinux', 'RPM-GPG-KEY-ALIYUN', 'RPM-GPG-KEY-ALinux-{version}'),
    versions: {
      2: [{ name: 'plus', url: '{mirror}/2.1903/plus/{arch}/debug' }],
      3: [
        { name: 'plus', url: '{mirror}/3/plus/{arch}/debug' },
        { name: 'plus-os', url: '{mirror}/3/plus/{arch}', images: true },
      ],
    },
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
    images: [...RPM_IMAGES, ...RPM_UNSPLIT_IMAGES],
    vmlinuz: RPM_VMLINUZ,
  },
  {
    id: 'anolis',
    distro: 'anolis',
    protocol: 'rpm-md',
    mirror: 'https://mirrors.openanolis.cn/anolis',
    keyrings: rpmKeys('anolis', 'RPM-GPG-KEY-ANOLIS'),
    versions: {
      7: [{ name: 'plus', url: '{mirror}/7.9/Plus/{arch}/debug' }],
      8: [
        { name: 'baseos', url: '{mirror}/8/BaseOS/{arch}/debug' },
        { name: 'plus', url: '{mirror}/8/Plus/{arch}/debug' },
        { name: 'baseos-os', url: '{mirror}/8/BaseOS/{arch}/os', images: true },
        { name: 'plus-os', url: '{mirror}/8/Plus/{arch}/os', images: true },
      ],
    },
    architectures: RPM_ARCHITECTURES,
    packages: RPM_DEBUGINFO,
    vmlinux: RPM_VMLINUX,
    images: [...RPM_IMAGES, ...RPM_UNSPLIT_IMAGES],
    vmlinuz: RPM_VMLINUZ,
  },
]
