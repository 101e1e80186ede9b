// Bundles: their content and order, the kernels that are left out, and reproducible bytes.
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { minimizeBtf, openObject, parseBtf, toDialect } from '../../../bpf/index.ts'
import { decodeManifest } from '../../../service/bundle/manifest.ts'
import { PROFILE_NAMES, PROFILES, type ProfileName } from '../../../service/bundle/profile.ts'
import {
  blobKey,
  generateKeys,
  openStore,
  putRecord,
  sha256Of,
  verifyContent,
} from '../../../storage/index.ts'
import {
  bundlesOf,
  bundlesOfKernels,
  DECOMPRESSORS,
  KERNELS,
  membersOf,
  objectFile,
  rawOf,
} from '../../helpers/bundles.ts'
import { btfOf, recordOf } from '../../helpers/test-service.ts'

const task = objectFile('task')
const ambiguous = objectFile('ambiguous')
const minimized = (machine: string, ...names: string[]) => {
  const objects = names.map((name) => openObject(objectFile(name).bytes))
  return Buffer.from(minimizeBtf(parseBtf(rawOf(machine)), objects))
}

const optionsFor = (profile: ProfileName) => ({
  profile,
  ...(PROFILES[profile].singleArch && { filter: { arch: 'x86_64' } }),
})

t.test('every profile gives the same bytes for the same input, whole and minimised', async (t) => {
  const bundles = await bundlesOfKernels(KERNELS)
  for (const profile of PROFILE_NAMES) {
    for (const objects of [[], [task]]) {
      const [one, two] = [
        await bundles.pack({ ...optionsFor(profile), objects }),
        await bundles.pack({ ...optionsFor(profile), objects }),
      ]
      t.ok(one.archive.equals(two.archive), profile)
      t.ok(one.manifest.equals(two.manifest))
      const tar = DECOMPRESSORS[PROFILES[profile].compression]!(one.archive)
      const members = await membersOf(tar)
      const inside = members.filter(({ name }) => name === 'manifest.json')
      t.equal(inside.length, PROFILES[profile].manifest === 'inside' ? 1 : 0)
      t.equal(members.length - inside.length, one.kernels)
    }
  }
})

t.test('a member is the BTF of the kernel, or the part that the objects need', async (t) => {
  const bundles = await bundlesOfKernels(KERNELS)
  const members = async (...objects: (typeof task)[]) =>
    membersOf(DECOMPRESSORS.xz!((await bundles.pack({ objects })).archive))
  const path = 'centos/7/x86_64/3.10.0-1160.el7.x86_64.btf'
  const bytesOf = (all: Awaited<ReturnType<typeof members>>) =>
    all.find(({ name }) => name === path)!.bytes
  t.ok(bytesOf(await members()).equals(rawOf('i686')))
  t.ok(bytesOf(await members(task)).equals(minimized('i686', 'task')))
  const both = await members(task, objectFile('bitfield'))
  t.ok(bytesOf(both).equals(minimized('i686', 'task', 'bitfield')))
})

t.test('a bundle in a dialect has every member in it, whole and minimised', async (t) => {
  const { pack } = await bundlesOfKernels(KERNELS)
  const dialect = 'libbpf-0.5'
  const old = (btf: Buffer) => Buffer.from(toDialect(parseBtf(btf), dialect))
  t.notOk(old(rawOf('x86_64')).equals(rawOf('x86_64')), 'the dialect lacks kinds of the kernels')
  for (const [objects, whole] of [
    [[], rawOf('x86_64')],
    [[task], minimized('x86_64', 'task')],
  ] as const) {
    const { archive, manifest } = await pack({ zstd: true, objects, dialect })
    const decoded = decodeManifest(manifest)
    t.equal(decoded.dialect, dialect)
    const members = await membersOf(DECOMPRESSORS.zstd!(archive))
    const first = members.find(({ name }) => name.endsWith('6.1.0-9-amd64.btf'))!
    t.ok(first.bytes.equals(old(whole)))
    t.equal(members.filter(({ type }) => type === 'link').length, 4)
    const digests = decoded.kernels
      .filter(({ kernel }) => kernel.distro !== 'centos')
      .map(({ sha256, size }) => ({ sha256, size }))
    const expected = { sha256: sha256Of(old(whole)), size: old(whole).length }
    t.same(digests, Array(5).fill(expected), 'the manifest lists what is in the archive')
  }
})

t.test('similar kernels are neighbours, and releases are in numeric order', async (t) => {
  const release = (n: number, flavour = 'amd64') => ({ release: `6.1.0-${n}-${flavour}` })
  const bundles = await bundlesOfKernels([
    release(9),
    release(10),
    release(9, 'cloud-amd64'),
    release(11),
    { release: '6.1.0-9-arm64', arch: 'aarch64' },
    { release: '6.1.0-10-arm64', arch: 'aarch64' },
  ])
  const { kernels } = decodeManifest((await bundles.pack({})).manifest)
  t.same(
    kernels.map(({ kernel }) => kernel.release),
    [
      '6.1.0-9-arm64',
      '6.1.0-10-arm64',
      '6.1.0-9-amd64',
      '6.1.0-10-amd64',
      '6.1.0-11-amd64',
      '6.1.0-9-cloud-amd64',
    ],
  )
})

t.test('equal BTF is stored once as a hard link, if the profile supports links', async (t) => {
  const bundles = await bundlesOfKernels(KERNELS)
  const { archive } = await bundles.pack({ zstd: true })
  const members = await membersOf(DECOMPRESSORS.zstd!(archive))
  t.equal(members.filter(({ type }) => type === 'link').length, 4)
  const directory = t.testdir()
  execFileSync('tar', ['--zstd', '-x', '-C', directory], { input: archive })
  const at = (path: string) => join(directory, path)
  for (const { name, link } of members) {
    if (!link) continue
    t.ok(readFileSync(at(name)).equals(readFileSync(at(link))))
    t.equal(statSync(at(name)).ino, statSync(at(link)).ino)
  }
  for (const profile of ['bcc', 'inspektor-gadget'] as const) {
    const { archive } = await bundles.pack({ profile })
    const types = (await membersOf(DECOMPRESSORS.gz!(archive))).map(({ type }) => type)
    t.same(new Set(types), new Set(['file']), `${profile} supports no links`)
  }
})

t.test('the BTF that several kernels share is read from the store once', async (t) => {
  const { store, open } = await bundlesOfKernels(KERNELS.filter(({ btf }) => !btf))
  const get = store.get.bind(store)
  const read: string[] = []
  store.get = (key, range) => {
    read.push(key)
    return get(key, range)
  }
  for (const objects of [[], [task]]) {
    read.length = 0
    const bundle = await open({ objects })
    for await (const _ of bundle.archive());
    t.same(read, [blobKey(sha256Of(rawOf('x86_64')))])
  }
})

t.test('the signed manifest lists kernels, digests, objects and tools', async (t) => {
  const bundles = await bundlesOfKernels([{ release: '6.1.0-9-amd64', buildId: 'ab'.repeat(20) }])
  const { publicKey, secretKey } = generateKeys()
  const { archive, manifest, signature } = await bundles.pack({ objects: [task], secretKey })
  const member = minimized('x86_64', 'task')
  t.same(decodeManifest(manifest), {
    schema: 1,
    btfmill: JSON.parse(readFileSync('package.json', 'utf8')).version,
    profile: 'tree',
    objects: [{ name: task.name, sha256: sha256Of(task.bytes), size: task.bytes.length }],
    kernels: [
      {
        path: 'debian/12/x86_64/6.1.0-9-amd64.btf',
        sha256: sha256Of(member),
        size: member.length,
        kernel: {
          distro: 'debian',
          version: '12',
          arch: 'x86_64',
          release: '6.1.0-9-amd64',
          buildId: 'ab'.repeat(20),
        },
        package: '1',
        btf: { sha256: sha256Of(rawOf('x86_64')), size: rawOf('x86_64').length },
        tool: { name: 'pahole', version: '1.24' },
      },
    ],
    findings: [],
  })
  t.equal(verifyContent(manifest, signature!.toString(), publicKey), 'file:manifest.json')
  const names = (await membersOf(DECOMPRESSORS.xz!(archive))).map(({ name }) => name)
  t.same(names.slice(-2), ['manifest.json', 'manifest.json.minisig'], 'the last entries')
})

t.test(
  'the policy decides whether a kernel on which an object does not work is included',
  async (t) => {
    const bundles = await bundlesOfKernels([
      { release: '6.1.0-1' },
      { release: '6.1.0-1', arch: 's390x', btf: 's390x' },
    ])
    const bigEndian = {
      code: 'unsupported',
      object: 'task.el.o',
      message: /endian/,
      kernel: { arch: 's390x' },
    }
    const skipped = await bundles.pack({ objects: [task] })
    t.equal(skipped.kernels, 1, 'skipped by default')
    t.match(skipped.findings, [{ ...bigEndian, included: false }])
    const included = await bundles.pack({ objects: [task], unsupported: 'include' })
    t.equal(included.kernels, 2)
    t.match(included.findings, [{ ...bigEndian, included: true }])
    t.match(decodeManifest(included.manifest).findings, included.findings)

    const fail = (objects: (typeof task)[], arch: string) =>
      bundles.open({ objects, unsupported: 'fail', filter: { arch } })
    await t.rejects(fail([task], 's390x'), {
      code: 'unsupported',
      details: { findings: [{ ...bigEndian }] },
    })
    await t.resolves(fail([task], 'x86_64'))
    const refused = await bundles.pack({
      objects: [task, ambiguous],
      unsupported: 'include',
      filter: { arch: 'x86_64' },
    })
    t.match(refused.findings, [{ code: 'unsupported', object: 'ambiguous.el.o', included: true }])
    const [whole] = await membersOf(DECOMPRESSORS.xz!(refused.archive))
    t.ok(
      whole!.bytes.equals(rawOf('x86_64')),
      'the member is whole, and the loader refuses the object as on the kernel',
    )
  },
)

t.test(
  'builds of one name share a member if it is equal, and are left out if it differs',
  async (t) => {
    const bundles = await bundlesOfKernels([
      { release: '6.1.0-1', package: '1' },
      { release: '6.1.0-1', package: '2', btf: 'i686' },
    ])
    const whole = await bundles.pack({})
    t.equal(whole.kernels, 0)
    t.match(whole.findings, [{ code: 'ambiguous', message: /different BTF: .*1/, included: false }])
    const plain = await bundles.pack({ objects: [objectFile('plain')] })
    t.equal(plain.kernels, 1)
    t.same(plain.findings, [])
    t.match((await bundles.pack({ objects: [task] })).findings, [
      { code: 'ambiguous', included: false },
    ])
    const newest = await bundles.pack({ unsupported: 'include' })
    t.equal(newest.kernels, 1)
    t.match(newest.findings, [{ code: 'ambiguous', included: true }])
    await t.rejects(bundles.open({ unsupported: 'fail' }), { code: 'unsupported' })
  },
)

t.test('a damaged blob is left out with a finding, and affects no other kernel', async (t) => {
  const bundles = await bundlesOfKernels(KERNELS)
  await bundles.store.delete(blobKey(sha256Of(rawOf('x86_64'))))
  for (const objects of [[], [task]]) {
    const { kernels, findings } = await bundles.pack({ objects, unsupported: 'include' })
    t.equal(kernels, 1)
    t.equal(findings.length, KERNELS.length - 1)
    for (const finding of findings)
      t.match(finding, { code: 'damaged', message: /not_found/, included: false })
  }
})

t.test(
  'a bundle is refused if no kernel matches or the profile does not support the options',
  async (t) => {
    const bundles = await bundlesOfKernels([
      ...KERNELS,
      { release: '6.1.0-1-arm64', arch: 'aarch64' },
    ])
    await t.rejects(bundles.open({ filter: { distro: 'sles' } }), { code: 'unknown_kernel' })
    await t.rejects(bundles.open({ profile: 'datadog' }), {
      code: 'invalid_request',
      message: /x86_64/,
    })
    await t.rejects(bundles.open({ profile: 'bcc', zstd: true }), { code: 'invalid_request' })
    await t.rejects(bundles.open({ objects: [{ name: 'x', bytes: rawOf('x86_64') }] }), {
      name: 'BtfError',
      code: 'invalid_elf',
    })
  },
)

t.test('a reader that closes the archive stops the work', async (t) => {
  const many = Array.from({ length: 40 }, (_, n) => ({
    release: `6.1.0-${n}`,
    btf: n % 2 ? 'i686' : 'x86_64',
  }))
  const { store, open } = await bundlesOfKernels(many)
  const get = store.get.bind(store)
  let reads = 0
  store.get = (key, range) => {
    reads++
    return get(key, range)
  }
  const archive = (await open({ profile: 'bcc' })).archive()
  for await (const _ of archive) break
  t.ok(archive.destroyed)
  const readsAtEnd = reads
  t.ok(readsAtEnd < many.length, `${readsAtEnd} read`)
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.equal(reads, readsAtEnd)
})

t.test(
  'the number of kernels prepared ahead of a stalled reader does not grow with the bundle',
  async (t) => {
    /** Returns the number of blobs read for a bundle of kernels with different BTF, while the reader takes nothing. */
    const readFor = async (kernels: number) => {
      const store = await openStore('memory:')
      for (let n = 0; n < kernels; n++) {
        const raw = Buffer.concat([rawOf('x86_64'), randomBytes(256 * 1024)]) // incompressible
        await putRecord(
          store,
          recordOf({ release: `6.1.0-${n}` }, { btf: await btfOf(store, raw) }),
        )
      }
      const { open } = await bundlesOf(store)
      const get = store.get.bind(store)
      let reads = 0
      store.get = (key, range) => {
        reads++
        return get(key, range)
      }
      const archive = (await open({ profile: 'bcc' })).archive()
      archive.read(0) // starts the stream, and takes nothing
      for (let before = -1; before !== reads; await sleep(300)) before = reads
      archive.destroy()
      return reads
    }
    const [few, many] = [await readFor(30), await readFor(120)]
    t.ok(few < 30, `${few} of 30`)
    t.ok(many <= few + 4, `${few} of 30, ${many} of 120`)
  },
)

t.test('bpftrace reads an unpacked member', async (t) => {
  const bundles = await bundlesOfKernels([{ release: '6.1.0-1' }])
  const directory = t.testdir()
  const list = async (name: string, objects: (typeof task)[]) => {
    mkdirSync(join(directory, name))
    const { archive: input } = await bundles.pack({ objects })
    execFileSync('tar', ['-xJ', '-C', join(directory, name)], { input })
    const env = {
      ...process.env,
      BPFTRACE_BTF: join(directory, name, 'debian/12/x86_64/6.1.0-1.btf'),
    }
    return execFileSync('bpftrace', ['-lv', 'struct task_struct'], { env, encoding: 'utf8' })
  }
  const [whole, minimal] = [await list('whole', []), await list('minimal', [task])]
  for (const member of ['comm[16]', 'group_leader', 'tgid']) {
    t.match(whole, member)
    t.match(minimal, member)
  }
})
