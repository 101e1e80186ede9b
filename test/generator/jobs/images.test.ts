/*
 * Packages with the kernel image, of each distribution that has them in repositories of their own: with the
 * distribution's names and paths, beside packages of similar names that have no kernel.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { baseOf, indexTargetsOf } from '../../../generator/indexes/discover.ts'
import { parseSource, type Source } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { makeSuite } from '../../helpers/apt-archive.ts'
import { startNginx } from '../../helpers/nginx.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRpmRepository } from '../../helpers/rpm-repository.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { makeVmlinux, stripped } from '../../helpers/vmlinux.ts'
import { bzImage } from '../../helpers/vmlinuz.ts'

interface Row {
  source: string
  version: string
  name: string
  /** version of the package */
  packaged: string
  /** `uname -r` */
  release: string
  /** path of the kernel in the package */
  path: string
  /** names of packages without a kernel */
  others?: readonly string[]
}

const rpm = (packaged: string) => ({ packaged, release: `${packaged}.x86_64` })
/** A distribution whose `uname -r` has no architecture. */
const bare = (packaged: string) => ({ packaged, release: packaged })
const unsplit = (source: string, version: string, names: ReturnType<typeof rpm>): Row => ({
  source,
  version,
  name: 'kernel',
  ...names,
  path: `boot/vmlinuz-${names.release}`,
  others: ['kernel-headers', 'kernel-tools'],
})
const core = (source: string, version: string, packaged: string): Row => ({
  source,
  version,
  name: 'kernel-core',
  ...rpm(packaged),
  path: `lib/modules/${packaged}.x86_64/vmlinuz`,
  others: ['kernel', 'kernel-debug-core', 'kernel-modules-core'],
})

const ROWS: readonly Row[] = [
  {
    source: 'ubuntu-images',
    version: '22.04',
    name: 'linux-image-5.15.0-100-generic',
    packaged: '5.15.0-100.110',
    release: '5.15.0-100-generic',
    path: 'boot/vmlinuz-5.15.0-100-generic',
    others: ['linux-image-generic', 'linux-headers-5.15.0-100-generic'],
  },
  core('centos-stream', '9', '5.14.0-474.el9'),
  core('rhel', '9', '5.14.0-503.11.1.el9_5'),
  core('alma', '9', '5.14.0-503.11.1.el9_5'),
  core('rocky', '9', '5.14.0-503.11.1.el9_5'),
  core('fedora', '45', '7.1.8-300.fc45'),
  core('fedora-archive', '42', '6.14.0-63.fc42'),
  core('anolis', '8', '5.10.134-16.an8'),
  {
    source: 'ol',
    version: '9',
    name: 'kernel-uek-core',
    ...rpm('5.15.0-300.163.18.el9uek'),
    path: 'lib/modules/5.15.0-300.163.18.el9uek.x86_64/vmlinuz',
    others: ['kernel-uek', 'kernel-uek-debug-core', 'kernel-uek-modules'],
  },
  {
    source: 'amzn',
    version: '2',
    name: 'kernel',
    ...rpm('5.10.230-223.885.amzn2'),
    path: 'boot/vmlinuz-5.10.230-223.885.amzn2.x86_64',
    others: ['kernel-devel', 'kernel-tools', 'kernel-livepatch-5.10.230-223.885'],
  },
  {
    source: 'amzn',
    version: '2023',
    name: 'kernel6.12',
    ...rpm('6.12.8-14.28.amzn2023'),
    path: 'lib/modules/6.12.8-14.28.amzn2023.x86_64/vmlinuz',
    others: ['kernel6.12-modules-extra'],
  },
  {
    source: 'sles',
    version: '15.4',
    name: 'kernel-default',
    packaged: '5.14.21-150400.24.46.1',
    release: '5.14.21-150400.24.46-default',
    path: 'boot/vmlinuz-5.14.21-150400.24.46-default',
    others: ['kernel-default-base', 'kernel-default-devel', 'kernel-macros', 'kernel-preempt'],
  },
  {
    source: 'opensuse-leap',
    version: '15.6',
    name: 'kernel-default',
    packaged: '6.4.0-150600.23.25.1',
    release: '6.4.0-150600.23.25-default',
    path: 'usr/lib/modules/6.4.0-150600.23.25-default/vmlinuz',
    others: ['kernel-default-extra', 'kernel-source', 'kernel-debug'],
  },
  {
    source: 'alinux',
    version: '3',
    name: 'kernel-core',
    ...rpm('5.10.134-16.1.al8'),
    path: 'lib/modules/5.10.134-16.1.al8.x86_64/vmlinuz',
    others: ['kernel'],
  },
  {
    source: 'openeuler',
    version: '22.03',
    name: 'kernel',
    ...rpm('5.10.0-60.18.0.50.oe2203'),
    path: 'boot/vmlinuz-5.10.0-60.18.0.50.oe2203.x86_64',
    others: ['kernel-headers', 'kernel-tools'],
  },
  unsplit('kylin', 'V10', rpm('4.19.90-52.22.v2207.ky10')),
  unsplit('hce', '2.0', rpm('5.10.0-60.18.0.50.r865_35.hce2')),
  unsplit('azurelinux', '3.0', bare('6.6.57.1-6.azl3')),
  unsplit('mariner', '2.0', bare('5.15.153.1-2.cm2')),
]

const hasImages = ({ versions }: Source) =>
  Object.values<{ images?: boolean }[]>(versions).some((all) => all.some((one) => one.images))

t.test('every source with images is tested', async (t) => {
  const rows = [...SOURCES.values()].filter(hasImages).map(({ id }) => id)
  t.same([...new Set(ROWS.map(({ source }) => source))].sort(), rows.sort())
})

/** The row's source with only the first of its repositories of images, on a mirror. */
function sourceOf({ source: id, version }: Row, mirror: string): Source {
  const known = SOURCES.get(id)!
  const { access: _, ...open } = known
  const [first] = known.versions[version]!.filter(({ images }) => images)
  const { only: __, ...repository } = first!
  const { url = '' } = first as { url?: string }
  const isElsewhere = !url.startsWith('{mirror}')
  return parseSource({
    ...open,
    mirror,
    architectures: { x86_64: known.architectures.x86_64 },
    versions: { [version]: [{ ...repository, ...(isElsewhere && { url: '{mirror}' }) }] },
    ...('keyrings' in known && { keyrings: [keyring] }),
    ...('signed' in known && { signed: false }),
  })
}

const signer = makeSigner(t)
const { keyring } = signer

/** Makes the row's repository at its source's URL; `btf` tells whether the kernel has BTF of its own. */
function build({ directory }: RunDirectory, row: Row, source: Source, btf = true): void {
  const [image, vmlinuz, note] = ['vmlinux', 'vmlinuz', 'note'].map((name) => join(directory, name))
  makeVmlinux(image!, { release: row.release, machine: 'x86_64', btf })
  writeFileSync(vmlinuz!, bzImage(stripped(image!), 'zstd'))
  writeFileSync(note!, 'no kernel')
  const all = [row.name, ...(row.others ?? [])].map((name) => {
    const path = name === row.name ? row.path : 'usr/share/doc/note'
    return { name, files: { [path]: path === row.path ? vmlinuz! : note! } }
  })
  const [target] = indexTargetsOf(source, {}, ['image'])
  const { protocol, pathname } = new URL(baseOf(target!, () => ''))
  const base = protocol === 'file:' ? pathname : join(directory, pathname)
  if (source.protocol === 'apt') {
    const { suite } = source.versions[row.version]![0]!
    const [version, architecture] = [row.packaged, 'amd64'] as const
    const packages = all.map((one) =>
      makePackage(directory, undefined, { ...one, version, architecture }),
    )
    const components = { main: packages, universe: [] }
    makeSuite(base, { suite, architecture, components, signer, compression: 'xz' })
    return
  }
  const [version = '', release = ''] = row.packaged.split(/-(?=[^-]*$)/)
  const packages = all.map((one) => makeRpm(directory, { ...one, version, release, signer }))
  if (source.protocol === 'listing') {
    mkdirSync(base, { recursive: true })
    for (const file of packages) copyFileSync(file, join(base, basename(file)))
    return
  }
  const folder = base.replace(/\/mirror\.list$/, '')
  makeRpmRepository(folder, { packages })
  if (folder !== base) writeFileSync(base, `file://${folder}/\n`)
}

for (const row of ROWS) {
  t.test(`BTF of ${row.source} ${row.version} is taken from its kernel image`, async (t) => {
    const env = await makeRunDirectory(t)
    const isListing = SOURCES.get(row.source)!.protocol === 'listing'
    const mirror = isListing
      ? await startNginx(t, env.directory, { listing: true })
      : `file://${env.directory}`
    const source = sourceOf(row, mirror)
    build(env, row, source)
    const from = { sources: [source] }
    const filter = { distro: source.distro, version: row.version }
    t.match(await env.run(from, { filter }), {
      published: 1,
      failed: {},
      sourcesFailed: 0,
    })
    t.match(await env.records(), [
      {
        kernel: { version: row.version, arch: 'x86_64', release: row.release },
        package: { name: row.name, version: row.packaged },
        origin: 'embedded',
        embedded: true,
      },
    ])
    t.match(
      await env.run(from, { filter, from: 'debug' }),
      { published: 0, sourcesFailed: 0 },
      'images are not read for debug info',
    )
  })
}

t.test(
  'a kernel image without BTF falls back on the debug package of another source',
  async (t) => {
    const [row] = ROWS as [Row]
    const env = await makeRunDirectory(t)
    const images = sourceOf(row, `file://${env.directory}`)
    build(env, row, images, false)
    const { packaged: version, release } = row
    const [image, modules] = [join(env.directory, 'vmlinux'), join(env.directory, 'modules')]
    writeFileSync(modules, Buffer.alloc(10_000_000))
    const files = {
      [`usr/lib/debug/boot/vmlinux-${release}`]: image,
      'usr/lib/debug/rest': modules,
    }
    const name = `linux-image-unsigned-${release}-dbgsym`
    const options = { name, version, architecture: 'amd64', files, compression: 'none' } as const
    const components = { main: [makePackage(env.directory, undefined, options)] }
    const [suite, folder] = ['debug', join(env.directory, 'ddebs')]
    makeSuite(folder, { suite, architecture: 'amd64', components, signer, compression: 'xz' })
    const ddebs = parseSource({
      ...SOURCES.get('ubuntu')!,
      architectures: images.architectures,
      keyrings: [keyring],
      components: ['main'],
      versions: { [row.version]: [{ url: `file://${folder}`, suite }] },
    })
    const filter = { distro: 'ubuntu', version: row.version }
    t.match(await env.run({ sources: [ddebs, images] }, { filter }), {
      published: 1,
      failed: {},
      sourcesFailed: 0,
    })
    t.match(await env.records(), [{ package: { name }, origin: 'pahole', embedded: false }])
  },
)
