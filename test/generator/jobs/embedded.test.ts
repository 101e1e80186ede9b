/* The embedded short cut: BTF that kernels carry themselves, out of their images, and pahole's where there is none. */
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { OnEvent } from '../../../generator/index.ts'
import { getBlob } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { type Mill, makeMill } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { makeVmlinux, stripped } from '../../helpers/vmlinux.ts'
import { bzImage } from '../../helpers/vmlinuz.ts'

const [FIRST, SECOND] = ['6.1.0-8-test', '6.1.0-9-test'] as const
const signer = makeSigner(t)

interface Kernel {
  release: string
  /** the kernel has BTF of its own */
  btf: boolean
  /** which packages there are; else both */
  only?: 'image' | 'debug'
}

/** Paths of a kernel's packages: the one with debug info, with more in it, and the one with its image. */
function packagesOf({ directory }: Mill, { release, btf, only }: Kernel): string[] {
  const [image, vmlinuz, rest] = ['vmlinux', 'vmlinuz', 'rest'].map((name) => join(directory, name))
  makeVmlinux(image!, { release, btf })
  writeFileSync(vmlinuz!, bzImage(stripped(image!), 'zstd'))
  writeFileSync(rest!, Buffer.alloc(4 * 1024 ** 2))
  const files = {
    [`usr/lib/debug/boot/vmlinux-${release}`]: image!,
    'usr/lib/debug/lib/modules/rest': rest!,
  }
  return [
    ...(only === 'image'
      ? []
      : [makePackage(directory, undefined, { release, files, compression: 'none' })]),
    ...(only === 'debug'
      ? []
      : [
          makePackage(directory, undefined, {
            name: `linux-image-${release}`,
            files: { [`boot/vmlinuz-${release}`]: vmlinuz! },
          }),
        ]),
  ]
}

const repositoryOf = (mill: Mill, kernels: readonly Kernel[]) =>
  makeRepository(mill.directory, {
    packages: kernels.flatMap((kernel) => packagesOf(mill, kernel)),
    signer,
  })

/** What a mill's kernels came to, by release. */
async function results(mill: Mill): Promise<Record<string, string>> {
  const records = await mill.records()
  return Object.fromEntries(
    records.map(({ kernel, origin, failure, package: { name } }) => [
      kernel.release,
      failure ? failure.code : `${origin} ${name}`,
    ]),
  )
}

t.test(
  'a kernel with BTF: its own, from its image, and nothing of its debug package',
  async (t) => {
    const mill = await makeMill(t)
    const repository = repositoryOf(mill, [{ release: FIRST, btf: true }])
    let read = 0
    const stages = new Set<string>()
    const onEvent: OnEvent = (event) => {
      if (event.event === 'stage') stages.add(event.stage)
      if (event.event === 'published') read = event.read
    }
    t.match(await mill.run(repository, { embedded: true, onEvent }), { published: 1, failed: {} })
    const [record] = await mill.records()
    t.match(record, {
      kernel: { release: FIRST, unameVersion: /^#1 SMP/, buildId: /^0123456789abcdef/ },
      package: { name: `linux-image-${FIRST}`, size: read, authenticated: 'index' },
      origin: 'embedded',
      embedded: true,
      tool: { name: 'none', fingerprint: 'embedded' },
    })
    t.notOk(stages.has('pahole'))
    t.ok(read < 64 * 1024, `${read} bytes`)

    const other = await makeMill(t)
    t.match(await other.run(repository), { published: 1 })
    const [debug] = await other.records()
    t.match(debug, { origin: 'pahole', package: { name: `linux-image-${FIRST}-dbg` } })
    const own = await getBlob(mill.store, record!.btf!.sha256)
    const made = await getBlob(other.store, debug!.btf!.sha256)
    t.ok(own.equals(made), 'the same BTF as from its debug info')

    t.match(await mill.run(repository, { embedded: true }), { published: 0, skipped: 1 })
    t.match(await mill.run(repository), { published: 0, skipped: 1 }, 'nothing is better')
    t.match(await other.run(repository, { embedded: true }), { published: 0, skipped: 1 })
  },
)

t.test('kernels without BTF between others: each falls back on its debug package', async (t) => {
  const mill = await makeMill(t)
  const kernels: Kernel[] = [
    { release: '6.1.0-1-test', btf: true },
    { release: '6.1.0-2-test', btf: false },
    { release: '6.1.0-3-test', btf: true },
    { release: '6.1.0-4-test', btf: false, only: 'image' },
    { release: '6.1.0-5-test', btf: false, only: 'debug' },
    { release: '6.1.0-6-test', btf: true, only: 'debug' },
  ]
  const repository = repositoryOf(mill, kernels)
  const begun: [string, string | undefined][] = []
  const onEvent: OnEvent = (event) => {
    if (event.event === 'started') begun.push([event.package, event.instead?.code])
  }
  const summary = await mill.run(repository, { embedded: true, onEvent })
  t.match(summary, { published: 5, failed: { no_btf: 1 } })
  t.same(await results(mill), {
    '6.1.0-1-test': 'embedded linux-image-6.1.0-1-test',
    '6.1.0-2-test': 'pahole linux-image-6.1.0-2-test-dbg',
    '6.1.0-3-test': 'embedded linux-image-6.1.0-3-test',
    '6.1.0-4-test': 'no_btf',
    '6.1.0-5-test': 'pahole linux-image-6.1.0-5-test-dbg',
    '6.1.0-6-test': 'embedded linux-image-6.1.0-6-test-dbg',
  })
  t.ok(begun.some(([name, why]) => name === 'linux-image-6.1.0-2-test-dbg' && why === 'no_btf'))
  t.match(await mill.records(), [{}, { embedded: false, package: { authenticated: 'index' } }])
  const blobs = await mill.leftovers()
  t.ok(
    blobs.every((path) => path.startsWith('store/blobs/')),
    'and nothing else is left',
  )
  t.match(await mill.run(repository, { embedded: true }), {
    published: 0,
    skipped: 5,
    postponed: 1,
  })
})

t.test(
  'an image that is broken, gone, or has no kernel, falls back too; one that is another file does not',
  async (t) => {
    const mill = await makeMill(t)
    const [debug] = packagesOf(mill, { release: SECOND, btf: true, only: 'debug' })
    const text = join(mill.directory, 'text')
    writeFileSync(text, 'no kernel')
    const image = (path: string) =>
      makePackage(mill.directory, undefined, {
        name: `linux-image-${SECOND}`,
        files: { [path]: text },
      })
    for (const path of ['usr/share/doc/other', `boot/vmlinuz-${SECOND}`]) {
      const one = await makeMill(t)
      const repository = makeRepository(one.directory, { packages: [debug!, image(path)], signer })
      t.match(await one.run(repository, { embedded: true }), { published: 1, failed: {} })
      t.match(await one.records(), [{ package: { name: `linux-image-${SECOND}-dbg` } }])
    }
    const packages = [debug!, image(`boot/vmlinuz-${SECOND}`)]
    const repository = makeRepository(mill.directory, { packages, signer })
    const path = join(repository.directory, `pool/linux-image-${SECOND}_6.1.9-1_i386.deb`)
    writeFileSync(path, Buffer.alloc(statSync(path).size))
    t.match(await mill.run(repository, { embedded: true }), { failed: { digest_mismatch: 1 } })
    rmSync(path)
    const later = await makeMill(t)
    t.match(await later.run(repository, { embedded: true }), { published: 1, failed: {} })
    t.match(await later.records(), [{ package: { name: `linux-image-${SECOND}-dbg` } }])
  },
)

t.test('the split image is taken, not the metapackage beside it', async (t) => {
  const mill = await makeMill(t)
  packagesOf(mill, { release: FIRST, btf: true })
  const vmlinuz = join(mill.directory, 'vmlinuz')
  const packages = [
    makePackage(mill.directory, undefined, { name: `linux-image-${FIRST}` }),
    makePackage(mill.directory, undefined, {
      name: `linux-binary-${FIRST}`,
      files: { [`usr/lib/modules/${FIRST}/vmlinuz`]: vmlinuz },
    }),
  ]
  const repository = makeRepository(mill.directory, { packages, signer })
  t.match(await mill.run(repository, { embedded: true }), { published: 1 })
  t.same(await results(mill), { [FIRST]: `embedded linux-binary-${FIRST}` })
})

t.test('a kernel that failed without its image is tried again with it', async (t) => {
  const mill = await makeMill(t)
  const [debug, image] = packagesOf(mill, { release: FIRST, btf: true })
  rmSync(debug!)
  const shim = makePackage(mill.directory, undefined, { release: FIRST })
  const repository = makeRepository(mill.directory, { packages: [shim, image!], signer })
  t.match(await mill.run(repository), { failed: { no_vmlinux: 1 } })
  t.match(await mill.run(repository), { postponed: 1 })
  t.match(await mill.run(repository, { embedded: true }), { published: 1 })
  t.match(await mill.records(), [{ origin: 'embedded', failure: undefined }])
})

t.test('images as files: a vmlinuz, a .deb, an .rpm', async (t) => {
  const mill = await makeMill(t)
  const [deb] = packagesOf(mill, { release: FIRST, btf: true, only: 'image' })
  const vmlinuz = join(mill.directory, 'vmlinuz')
  for (const file of [vmlinuz, deb!]) {
    const one = await makeMill(t)
    t.match(await one.run([file]), { published: 1, failed: {} }, file)
    t.match(await one.records(), [{ kernel: { release: FIRST, arch: 'i686' }, origin: 'embedded' }])
  }
  const release = '5.14.0-1.el9.i686'
  packagesOf(mill, { release, btf: true })
  const files = { [`lib/modules/${release}/vmlinuz`]: vmlinuz }
  const rpm = makeRpm(mill.directory, { name: 'kernel-core', arch: 'i686', files })
  const one = await makeMill(t)
  t.match(await one.run([rpm], { embedded: true }), { published: 1 })
  t.match(await one.records(), [{ kernel: { release, arch: 'i686' }, origin: 'embedded' }])

  packagesOf(mill, { release: FIRST, btf: false })
  t.match(await mill.run([vmlinuz]), { failed: { no_dwarf: 1 } }, 'neither BTF nor debug info')
  t.match(await mill.run([vmlinuz], { embedded: true }), { failed: { no_btf: 1 } })
})
