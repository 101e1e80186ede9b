/* Alibaba Cloud Linux and OpenAnolis, its community edition. */
import {
  collectedKeys,
  debugAndImages,
  RPM_IMAGES,
  RPM_KERNELS,
  RPM_UNSPLIT_IMAGES,
  rpmKeys,
} from './conventions.ts'
import type { Source } from './source.ts'

/** Some of their kernels are split into packages, and some are not. */
const KERNELS = { ...RPM_KERNELS, images: [...RPM_IMAGES, ...RPM_UNSPLIT_IMAGES] }

export const ALIBABA_SOURCES: readonly Source[] = [
  {
    id: 'alinux',
    distro: 'alinux',
    ...KERNELS,
    mirror: 'https://mirrors.aliyun.com/alinux',
    keyrings: rpmKeys('alinux', 'RPM-GPG-KEY-ALIYUN', 'RPM-GPG-KEY-ALinux-{version}'),
    versions: {
      2: [
        { name: 'plus', url: '{mirror}/2.1903/plus/{arch}/debug' },
        { name: 'kernels', url: '{mirror}/2/kernels/{arch}/debug' },
      ],
      3: debugAndImages('plus', '{mirror}/3/plus/{arch}/debug', '{mirror}/3/plus/{arch}'),
    },
  },
  {
    id: 'anolis',
    distro: 'anolis',
    ...KERNELS,
    mirror: 'https://mirrors.openanolis.cn/anolis',
    keyrings: rpmKeys('anolis', 'RPM-GPG-KEY-ANOLIS'),
    fingerprints: ['F87DB6522967855E986F840C619140084873F7C5'],
    keyUrls: [
      'https://mirrors.openanolis.cn/anolis/RPM-GPG-KEY-ANOLIS',
      ...collectedKeys('anolis', 'RPM-GPG-KEY-ANOLIS'),
    ],
    versions: {
      7: ['7.7', '7.9'].map((name) => ({ name, url: `{mirror}/${name}/Plus/{arch}/debug` })),
      8: [
        ...['BaseOS', 'Plus'].flatMap((name) =>
          debugAndImages(
            name.toLowerCase(),
            `{mirror}/8/${name}/{arch}/debug`,
            `{mirror}/8/${name}/{arch}/os`,
          ),
        ),
        // kernels that 8 no longer has
        ...['8.2', '8.4'].map((name) => ({ name, url: `{mirror}/${name}/Plus/{arch}/debug` })),
      ],
    },
  },
]
