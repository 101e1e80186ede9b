/* BTF that kernels carry themselves is taken from the smallest package that has it; pahole makes it only where none has. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readBtf } from '../../../bpf/index.ts'
import type { GenerateOptions, OnEvent } from '../../../generator/index.ts'
import { getBlob } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { makeModule, makeVmlinux, stripped } from '../../helpers/vmlinux.ts'
import { bzImage, zboot } from '../../helpers/vmlinuz.ts'

const [FIRST, SECOND] = ['6.1.0-8-test', '6.1.0-9-test'] as const
const signer = makeSigner(t)

interface Kernel {
  release: string
  /** the kernel has BTF of its own */
  btf: boolean
  /** the only package that exists; default: both do */
  only?: 'image' | 'debug'
}

/** Paths of a kernel's packages: the one with debug info and other files, and the one with the image. */
function packagesOf({ directory }: RunDirectory, { release, btf, only }: Kernel): string[] {
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

/**
 * Path of a package with kernel headers in Debian's form: an ELF file with the BTF of the image that `packagesOf` made,
 * and the kernel's version. Without a `version`, it has no vmlinux either, as before 6.12.
 */
function headersOf(
  { directory }: RunDirectory,
  release: string,
  version: { release: string; unameVersion: string } | null = { release, unameVersion: UTS },
): string {
  const at = (name: string) => join(directory, name)
  execFileSync('llvm-objcopy', ['--only-section=.BTF', at('vmlinux'), at('btf.elf')])
  writeFileSync(at('config'), 'CONFIG_BPF=y')
  writeFileSync(at('utsrelease.h'), `#define UTS_RELEASE "${version?.release}"\n`)
  writeFileSync(at('utsversion.h'), `#define UTS_VERSION "${version?.unameVersion}"\n`)
  const folder = `usr/src/linux-headers-${release}`
  return makePackage(directory, undefined, {
    name: `linux-headers-${release}`,
    files: {
      [`${folder}/.config`]: at('config'),
      ...(version && {
        [`${folder}/include/generated/utsrelease.h`]: at('utsrelease.h'),
        [`${folder}/include/generated/utsversion.h`]: at('utsversion.h'),
        [`${folder}/vmlinux`]: at('btf.elf'),
      }),
    },
  })
}

const SINCE_6_12 = '6.12.9+deb13-test'
const UTS = '#1 SMP Debian 6.12.9-1 (2026-09-30)'

const repositoryOf = (env: RunDirectory, kernels: readonly Kernel[]) =>
  makeRepository(env.directory, {
    packages: kernels.flatMap((kernel) => packagesOf(env, kernel)),
    signer,
  })

/** The result of each kernel, by release: origin and package, or the failure's code. */
async function results(env: RunDirectory): Promise<Record<string, string>> {
  const records = await env.records()
  return Object.fromEntries(
    records.map(({ kernel, origin, failure, package: { name } }) => [
      kernel.release,
      failure ? failure.code : `${origin} ${name}`,
    ]),
  )
}

t.test(
  "the BTF of a kernel's image equals pahole's, and the debug package is not read",
  async (t) => {
    const env = await makeRunDirectory(t)
    const repository = repositoryOf(env, [{ release: FIRST, btf: true }])
    let read = 0
    const stages = new Set<string>()
    const onEvent: OnEvent = (event) => {
      if (event.event === 'stage') stages.add(event.stage)
      if (event.event === 'published') read = event.read
    }
    t.match(await env.run(repository, { onEvent }), { published: 1, failed: {} })
    const [record] = await env.records()
    t.match(record, {
      kernel: { release: FIRST, unameVersion: /^#1 SMP/, buildId: /^0123456789abcdef/ },
      package: { name: `linux-image-${FIRST}`, size: read, authenticated: 'index' },
      origin: 'embedded',
      embedded: true,
      tool: { name: 'none', fingerprint: 'embedded' },
    })
    t.notOk(stages.has('pahole'))
    t.ok(read < 64 * 1024, `${read} bytes`)

    const other = await makeRunDirectory(t)
    t.match(await other.run(repository, { from: 'debug' }), { published: 1 })
    const [debug] = await other.records()
    t.match(debug, { origin: 'pahole', package: { name: `linux-image-${FIRST}-dbg` } })
    const own = await getBlob(env.store, record!.btf!.sha256)
    const made = await getBlob(other.store, debug!.btf!.sha256)
    t.ok(own.equals(made), 'the same BTF as from the debug info')

    t.match(await env.run(repository), { published: 0, skipped: 1 })
    t.match(await env.run(repository, { from: 'embedded' }), { published: 0, skipped: 1 })
    t.match(await other.run(repository), { published: 0, skipped: 1 })
  },
)

t.test(
  'a kernel whose image has no BTF falls back on its debug package, and the others do not',
  async (t) => {
    const env = await makeRunDirectory(t)
    const kernels: Kernel[] = [
      { release: '6.1.0-1-test', btf: true },
      { release: '6.1.0-2-test', btf: false },
      { release: '6.1.0-3-test', btf: true },
      { release: '6.1.0-4-test', btf: false, only: 'image' },
      { release: '6.1.0-5-test', btf: false, only: 'debug' },
      { release: '6.1.0-6-test', btf: true, only: 'debug' },
    ]
    const repository = repositoryOf(env, kernels)
    const begun: [string, string | undefined][] = []
    const onEvent: OnEvent = (event) => {
      if (event.event === 'started') begun.push([event.package, event.instead?.code])
    }
    const summary = await env.run(repository, { onEvent })
    t.match(summary, { published: 5, failed: { no_btf: 1 } })
    t.same(await results(env), {
      '6.1.0-1-test': 'embedded linux-image-6.1.0-1-test',
      '6.1.0-2-test': 'pahole linux-image-6.1.0-2-test-dbg',
      '6.1.0-3-test': 'embedded linux-image-6.1.0-3-test',
      '6.1.0-4-test': 'no_btf',
      '6.1.0-5-test': 'pahole linux-image-6.1.0-5-test-dbg',
      '6.1.0-6-test': 'embedded linux-image-6.1.0-6-test-dbg',
    })
    t.ok(begun.some(([name, why]) => name === 'linux-image-6.1.0-2-test-dbg' && why === 'no_btf'))
    t.match(await env.records(), [{}, { embedded: false, package: { authenticated: 'index' } }])
    const blobs = await env.leftovers()
    t.ok(
      blobs.every((path) => path.startsWith('store/blobs/')),
      'no other file is left',
    )
    t.match(await env.run(repository), {
      published: 0,
      skipped: 5,
      postponed: 1,
    })
  },
)

t.test(
  'an image that is lost or has no kernel falls back on the debug package; one with a wrong digest does not',
  async (t) => {
    const env = await makeRunDirectory(t)
    const [debug] = packagesOf(env, { release: SECOND, btf: true, only: 'debug' })
    const text = join(env.directory, 'text')
    writeFileSync(text, 'no kernel')
    const image = (path: string) =>
      makePackage(env.directory, undefined, {
        name: `linux-image-${SECOND}`,
        files: { [path]: text },
      })
    for (const path of ['usr/share/doc/other', `boot/vmlinuz-${SECOND}`]) {
      const one = await makeRunDirectory(t)
      const repository = makeRepository(one.directory, { packages: [debug!, image(path)], signer })
      t.match(await one.run(repository), { published: 1, failed: {} })
      t.match(await one.records(), [{ package: { name: `linux-image-${SECOND}-dbg` } }])
    }
    const packages = [debug!, image(`boot/vmlinuz-${SECOND}`)]
    const repository = makeRepository(env.directory, { packages, signer })
    const path = join(repository.directory, `pool/linux-image-${SECOND}_6.1.9-1_i386.deb`)
    writeFileSync(path, Buffer.alloc(statSync(path).size))
    t.match(await env.run(repository), { failed: { digest_mismatch: 1 } })
    rmSync(path)
    const later = await makeRunDirectory(t)
    t.match(await later.run(repository), { published: 1, failed: {} })
    t.match(await later.records(), [{ package: { name: `linux-image-${SECOND}-dbg` } }])
  },
)

t.test(
  'the package with the kernel is read, and not the metapackage of a similar name',
  async (t) => {
    const env = await makeRunDirectory(t)
    packagesOf(env, { release: FIRST, btf: true })
    const vmlinuz = join(env.directory, 'vmlinuz')
    const packages = [
      makePackage(env.directory, undefined, { name: `linux-image-${FIRST}` }),
      makePackage(env.directory, undefined, {
        name: `linux-binary-${FIRST}`,
        files: { [`usr/lib/modules/${FIRST}/vmlinuz`]: vmlinuz },
      }),
    ]
    const repository = makeRepository(env.directory, { packages, signer })
    t.match(await env.run(repository), { published: 1 })
    t.same(await results(env), { [FIRST]: `embedded linux-binary-${FIRST}` })
  },
)

t.test(
  'a kernel whose debug package failed is tried again when its image may be read',
  async (t) => {
    const env = await makeRunDirectory(t)
    const [debug, image] = packagesOf(env, { release: FIRST, btf: true })
    rmSync(debug!)
    const shim = makePackage(env.directory, undefined, { release: FIRST })
    const repository = makeRepository(env.directory, { packages: [shim, image!], signer })
    t.match(await env.run(repository, { from: 'debug' }), { failed: { no_vmlinux: 1 } })
    t.match(await env.run(repository, { from: 'debug' }), { postponed: 1 })
    t.match(await env.run(repository), { published: 1 })
    t.match(await env.records(), [{ origin: 'embedded', failure: undefined }])
  },
)

t.test('a vmlinuz, a .deb or an .rpm with an image can be given as a file', async (t) => {
  const env = await makeRunDirectory(t)
  const [deb] = packagesOf(env, { release: FIRST, btf: true, only: 'image' })
  const vmlinuz = join(env.directory, 'vmlinuz')
  for (const file of [vmlinuz, deb!]) {
    const one = await makeRunDirectory(t)
    t.match(await one.run([file]), { published: 1, failed: {} }, file)
    t.match(await one.records(), [{ kernel: { release: FIRST, arch: 'i686' }, origin: 'embedded' }])
  }
  const release = '5.14.0-1.el9.i686'
  packagesOf(env, { release, btf: true })
  const files = { [`lib/modules/${release}/vmlinuz`]: vmlinuz }
  const rpm = makeRpm(env.directory, { name: 'kernel-core', arch: 'i686', files })
  const one = await makeRunDirectory(t)
  t.match(await one.run([rpm]), { published: 1 })
  t.match(await one.records(), [{ kernel: { release, arch: 'i686' }, origin: 'embedded' }])

  packagesOf(env, { release: FIRST, btf: false })
  t.match(await env.run([vmlinuz], { from: 'debug' }), { failed: { no_dwarf: 1 } })
  t.match(await env.run([vmlinuz], { from: 'embedded' }), { failed: { no_btf: 1 } })
})

/** The packages that a run started, and the failure of the package before each. */
function startsOf(): { starts: [string, string | undefined][]; onEvent: OnEvent } {
  const starts: [string, string | undefined][] = []
  return {
    starts,
    onEvent(event) {
      if (event.event === 'started') starts.push([event.package, event.instead?.code])
    },
  }
}

t.test(
  'where the kernel headers have the BTF, neither the image nor the debug package is read',
  async (t) => {
    const env = await makeRunDirectory(t)
    const packages = packagesOf(env, { release: SINCE_6_12, btf: true })
    const headers = headersOf(env, SINCE_6_12)
    const repository = makeRepository(env.directory, { packages: [...packages, headers], signer })
    const { starts, onEvent } = startsOf()
    t.match(await env.run(repository, { onEvent }), {
      published: 1,
      failed: {},
      read: statSync(headers).size,
    })
    t.same(starts, [[`linux-headers-${SINCE_6_12}`, undefined]])
    const [record] = await env.records()
    t.match(record, {
      kernel: { release: SINCE_6_12, arch: 'i686', unameVersion: UTS, buildId: undefined },
      package: { name: `linux-headers-${SINCE_6_12}`, version: '6.1.9-1', authenticated: 'index' },
      origin: 'embedded',
      embedded: true,
      tool: { name: 'none', fingerprint: 'embedded' },
    })
    const other = await makeRunDirectory(t)
    t.match(await other.run([packages[1]!]), { published: 1 })
    t.equal((await other.records())[0]!.btf!.sha256, record!.btf!.sha256, 'the image has the same')
    t.match(await env.run(repository), { published: 0, skipped: 1, read: 0 })

    const file = await makeRunDirectory(t)
    t.match(await file.run([headers]), { published: 1 }, 'a file with headers that a user gives')
    t.match(await file.records(), [
      { kernel: { release: SINCE_6_12, arch: 'i686', unameVersion: UTS } },
    ])
  },
)

t.test(
  'headers without BTF fall back on the image, and that on the debug package, in one run',
  async (t) => {
    const env = await makeRunDirectory(t)
    const [withBtf, without] = ['6.1.0-1-test', '6.1.0-2-test']
    const all = [
      ...packagesOf(env, { release: withBtf, btf: true }),
      headersOf(env, withBtf, null),
      ...packagesOf(env, { release: without, btf: false }),
    ]
    const headers = makePackage(env.directory, undefined, { name: `linux-headers-${without}` })
    const repository = makeRepository(env.directory, { packages: [...all, headers], signer })
    const { starts, onEvent } = startsOf()
    const size = [...all, headers]
      .filter((path) => !path.includes(`${withBtf}-dbg`))
      .reduce((sum, path) => sum + statSync(path).size, 0)
    t.match(await env.run(repository, { onEvent }), { published: 2, failed: {}, read: size })
    t.same(starts, [
      [`linux-headers-${without}`, undefined],
      [`linux-image-${without}`, 'no_vmlinux'],
      [`linux-image-${without}-dbg`, 'no_btf'],
      [`linux-headers-${withBtf}`, undefined],
      [`linux-image-${withBtf}`, 'no_vmlinux'],
    ])
    t.same(await results(env), {
      [withBtf]: `embedded linux-image-${withBtf}`,
      [without]: `pahole linux-image-${without}-dbg`,
    })
    t.match(await env.run(repository), { published: 0, skipped: 2 })
  },
)

t.test('headers of another kernel are not used', async (t) => {
  const env = await makeRunDirectory(t)
  const packages = packagesOf(env, { release: FIRST, btf: true })
  const headers = headersOf(env, FIRST, { release: SECOND, unameVersion: UTS })
  const repository = makeRepository(env.directory, { packages: [...packages, headers], signer })
  const { starts, onEvent } = startsOf()
  t.match(await env.run(repository, { onEvent }), { published: 1, failed: {} })
  t.same(starts.at(-1), [`linux-image-${FIRST}`, 'kernel_mismatch'])
})

t.test('for modules the image is read, although the headers have the BTF', async (t) => {
  const env = await makeRunDirectory(t)
  const packages = packagesOf(env, { release: FIRST, btf: true })
  packages.push(headersOf(env, FIRST))
  const repository = makeRepository(env.directory, { packages, signer })
  t.match(await env.run(repository), { published: 1 })
  const { starts, onEvent } = startsOf()
  t.match(await env.run(repository, { modules: ['early'], onEvent }), { published: 1 })
  t.same(starts, [
    [`linux-image-${FIRST}`, undefined],
    [`linux-image-${FIRST}-dbg`, 'no_module'],
  ])
})

t.test(
  '--from forces one way, and makes a kernel again that the store has in the other',
  async (t) => {
    const env = await makeRunDirectory(t)
    const packages = packagesOf(env, { release: FIRST, btf: true })
    packages.push(headersOf(env, FIRST))
    const repository = makeRepository(env.directory, { packages, signer })
    const [headers, debug] = [`linux-headers-${FIRST}`, `linux-image-${FIRST}-dbg`]
    for (const [from, published, result] of [
      [undefined, 1, `embedded ${headers}`],
      ['embedded', 0, `embedded ${headers}`],
      ['debug', 1, `pahole ${debug}`],
      ['debug', 0, `pahole ${debug}`],
      [undefined, 0, `pahole ${debug}`],
      ['embedded', 1, `embedded ${headers}`],
      [undefined, 0, `embedded ${headers}`],
    ] as const) {
      const summary = await env.run(repository, from && { from })
      t.match(summary, { published, skipped: 1 - published, failed: {} }, `${from}`)
      t.same(await results(env), { [FIRST]: result }, `${from}`)
    }
  },
)

t.test(
  'a kernel that failed with --from embedded is tried in the other way when that is allowed',
  async (t) => {
    const env = await makeRunDirectory(t)
    const repository = repositoryOf(env, [{ release: FIRST, btf: false }])
    t.match(await env.run(repository, { from: 'embedded' }), { failed: { no_btf: 1 } })
    t.match(await env.run(repository, { from: 'embedded' }), { postponed: 1 })
    const other = await makeRunDirectory(t)
    await other.run(repository, { from: 'embedded' })
    t.match(await other.run(repository, { from: 'debug' }), { published: 1 })
    t.match(await env.run(repository), { published: 1 })
    t.same(await results(env), { [FIRST]: `pahole linux-image-${FIRST}-dbg` })
    t.match(await env.run(repository, { from: 'embedded' }), { skipped: 1, read: 0 }, 'known')
  },
)

/** A kernel from 7.4 on, built with CONFIG_DEBUG_INFO_BTF=m: its BTF is in a module. */
interface ModularKernel {
  /** what `.BTF.link` of the image has, by the BTF; default: no such section */
  link?: (btf: Buffer) => Buffer
  /** the boot image, if it is no ELF file: bytes with the banner, given the BTF */
  flat?: (btf: Buffer) => Buffer
  release?: string
  /** default: the package has the module btf_vmlinux */
  hasModule?: boolean
}

const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest()
/** A name, a size and a digest; how they are arranged does not matter. */
const linkOf = (btf: Buffer): Buffer =>
  Buffer.concat([Buffer.from('btf_vmlinux\0\0\0\0\0'), Buffer.alloc(8, btf.length), sha256(btf)])

/** A package with a boot image and modules; the BTF of the kernel is in one of them. */
function modularPackage(
  { directory }: RunDirectory,
  { link, flat, release = '7.4.0-1-test', hasModule = true }: ModularKernel,
): { path: string; btf: Buffer } {
  const [image, own, part, vmlinuz] = ['vmlinux', 'own.ko', 'part.ko', 'vmlinuz'].map((name) =>
    join(directory, name),
  )
  makeVmlinux(image!, { release, btf: true })
  makeModule(part!, 'part_state')
  execFileSync('pahole', ['--btf_base', image!, '-J', part!])
  execFileSync('llvm-objcopy', ['--strip-debug', '--keep-section=.BTF', part!])
  const btf = Buffer.from(readBtf(readFileSync(image!)).bytes)
  writeFileSync(`${image}.btf`, btf)
  makeModule(own!, 'own_state', { debug: false })
  execFileSync('llvm-objcopy', ['--add-section', `.BTF=${image}.btf`, own!])
  if (link) {
    writeFileSync(`${image}.link`, link(btf))
    execFileSync('llvm-objcopy', ['--add-section', `.BTF.link=${image}.link`, image!])
  }
  const kept = link ? ['.BTF.link'] : []
  const kernel = flat ? zboot(flat(btf), 'gzip') : bzImage(stripped(image!, kept, ['.BTF']), 'zstd')
  writeFileSync(vmlinuz!, kernel)
  const modules = `lib/modules/${release}/kernel`
  const path = makePackage(directory, undefined, {
    name: `linux-image-${release}`,
    release,
    files: {
      [`boot/vmlinuz-${release}`]: vmlinuz!,
      [`${modules}/part.ko`]: part!,
      ...(hasModule && { [`${modules}/kernel/bpf/btf_vmlinux.ko`]: own! }),
    },
  })
  return { path, btf }
}

/** Runs a generation from a repository of one such kernel. */
async function runModular(t: Test, kernel: ModularKernel, options: Partial<GenerateOptions> = {}) {
  const env = await makeRunDirectory(t)
  const { path, btf } = modularPackage(env, kernel)
  const repository = makeRepository(env.directory, { packages: [path], signer })
  await env.run(repository, options)
  const [record] = await env.records()
  return { record, btf, env }
}

t.test('the BTF of a kernel whose BTF is a module is taken from there, and proved', async (t) => {
  const { record, btf, env } = await runModular(t, { link: linkOf }, { modules: ['*'] })
  t.match(record, { origin: 'embedded', embedded: true, proven: true, failure: undefined })
  t.ok((await getBlob(env.store, record!.btf!.sha256)).equals(btf))
  t.same(Object.keys(record!.modules!), ['part'], 'it is no module with types of its own')
  t.same(record!.moduleFailures, {})
  const early = await runModular(t, { link: linkOf }, { earlyStop: true })
  t.match(early.record, { proven: true }, 'with earlyStop, too')
})

t.test(
  'a kernel that does not name its BTF has it unproved, and of another build not',
  async (t) => {
    const unnamed = await runModular(t, {})
    t.match(unnamed.record, { origin: 'embedded', btf: { size: unnamed.btf.length } })
    t.equal(unnamed.record!.proven, undefined)
    const other = await runModular(t, { link: (btf) => linkOf(Buffer.concat([btf, btf])) })
    t.match(other.record, { btf: undefined, failure: { code: 'kernel_mismatch' } })
    const none = await runModular(t, { link: linkOf, hasModule: false })
    t.match(none.record, { btf: undefined, failure: { code: 'no_btf' } })
    const older = await runModular(t, { release: '6.1.0-1-test' })
    t.match(older.record, { failure: { code: 'no_btf' } }, 'it is not looked for in old kernels')
  },
)

t.test('a flat image without BTF has that of its module', async (t) => {
  const banner = Buffer.from('Linux version 7.4.0-1-test (a@b) (clang) #1 SMP Debian 7.4.1-1\n\0')
  const flat = (btf: Buffer) => Buffer.concat([Buffer.alloc(512), banner, linkOf(btf)])
  const { record, btf } = await runModular(t, { flat })
  t.match(record, { origin: 'embedded', proven: true, kernel: { unameVersion: /^#1 SMP/ } })
  t.equal(record!.btf!.size, btf.length)
  const unnamed = await runModular(t, { flat: () => Buffer.concat([Buffer.alloc(512), banner]) })
  t.match(unnamed.record, { origin: 'embedded', btf: { size: btf.length } })
  t.equal(unnamed.record!.proven, undefined)
})
