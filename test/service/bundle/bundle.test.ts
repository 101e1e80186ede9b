// Bundles: what is in one, in which order, what is left out and why, and that its bytes follow from what goes in.
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { minimizeBtf, openObject, parseBtf } from '../../../bpf/index.ts'
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
  KERNELS,
  membersOf,
  objectFile,
  PLAIN,
  rawOf,
  shelfOf,
} from '../../helpers/bundles.ts'
import { btfOf, recordOf } from '../../helpers/test-service.ts'

const task = objectFile('task')
const ambiguous = objectFile('ambiguous')
const minimized = (machine: string, ...names: string[]) => {
  const objects = names.map((name) => openObject(objectFile(name).bytes))
  return Buffer.from(minimizeBtf(parseBtf(rawOf(machine)), objects))
}

const of = (profile: ProfileName) => ({
  profile,
  ...(PROFILES[profile].oneArch && { filter: { arch: 'x86_64' } }),
})

t.test('every profile: the same bytes again, whole and minimised', async (t) => {
  const shelf = await shelfOf(KERNELS)
  for (const profile of PROFILE_NAMES) {
    for (const objects of [[], [task]]) {
      const [one, two] = [
        await shelf.pack({ ...of(profile), objects }),
        await shelf.pack({ ...of(profile), objects }),
      ]
      t.ok(one.archive.equals(two.archive), profile)
      t.ok(one.manifest.equals(two.manifest))
      const tar = PLAIN[PROFILES[profile].compression]!(one.archive)
      const members = await membersOf(tar)
      const inside = members.filter(({ name }) => name === 'manifest.json')
      t.equal(inside.length, PROFILES[profile].manifest === 'inside' ? 1 : 0)
      t.equal(members.length - inside.length, one.kernels)
    }
  }
})

t.test('BTF is what the kernel has, or what the objects need of it', async (t) => {
  const shelf = await shelfOf(KERNELS)
  const members = async (...objects: (typeof task)[]) =>
    membersOf(PLAIN.xz!((await shelf.pack({ objects })).archive))
  const path = 'centos/7/x86_64/3.10.0-1160.el7.x86_64.btf'
  const bytesOf = (all: Awaited<ReturnType<typeof members>>) =>
    all.find(({ name }) => name === path)!.bytes
  t.ok(bytesOf(await members()).equals(rawOf('i686')))
  t.ok(bytesOf(await members(task)).equals(minimized('i686', 'task')))
  const both = await members(task, objectFile('bitfield'))
  t.ok(bytesOf(both).equals(minimized('i686', 'task', 'bitfield')))
})

t.test('similar kernels are neighbours, and counted as people count', async (t) => {
  const release = (n: number, flavour = 'amd64') => ({ release: `6.1.0-${n}-${flavour}` })
  const shelf = await shelfOf([
    ...[release(9), release(10), release(9, 'cloud-amd64'), release(11)],
    { release: '6.1.0-9-arm64', arch: 'aarch64' },
    { release: '6.1.0-10-arm64', arch: 'aarch64' },
  ])
  const { kernels } = decodeManifest((await shelf.pack({})).manifest)
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

t.test('equal BTF is there once where links are made, and tar makes them', async (t) => {
  const shelf = await shelfOf(KERNELS)
  const { archive } = await shelf.pack({ zstd: true })
  const members = await membersOf(PLAIN.zstd!(archive))
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
    const { archive } = await shelf.pack({ profile })
    const types = (await membersOf(PLAIN.gz!(archive))).map(({ type }) => type)
    t.same(new Set(types), new Set(['file']), `${profile} reads no links`)
  }
})

t.test('a BTF that is in the store several times is read once', async (t) => {
  const { store, open } = await shelfOf(KERNELS.filter(({ btf }) => !btf))
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

t.test('the manifest: kernels, digests, objects, tools; signed', async (t) => {
  const shelf = await shelfOf([{ release: '6.1.0-9-amd64', buildId: 'ab'.repeat(20) }])
  const { publicKey, secretKey } = generateKeys()
  const { archive, manifest, signature } = await shelf.pack({ objects: [task], secretKey })
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
  const names = (await membersOf(PLAIN.xz!(archive))).map(({ name }) => name)
  t.same(names.slice(-2), ['manifest.json', 'manifest.json.minisig'], 'the last ones')
})

t.test('kernels on which an object does not work', async (t) => {
  const shelf = await shelfOf([
    { release: '6.1.0-1' },
    { release: '6.1.0-1', arch: 's390x', btf: 's390x' },
  ])
  const bigEndian = {
    code: 'unsupported',
    object: 'task.el.o',
    message: /endian/,
    kernel: { arch: 's390x' },
  }
  const skipped = await shelf.pack({ objects: [task] })
  t.equal(skipped.kernels, 1, 'skipped, if nothing else is said')
  t.match(skipped.findings, [{ ...bigEndian, included: false }])
  const included = await shelf.pack({ objects: [task], unsupported: 'include' })
  t.equal(included.kernels, 2)
  t.match(included.findings, [{ ...bigEndian, included: true }])
  t.match(decodeManifest(included.manifest).findings, included.findings)

  const fail = (objects: (typeof task)[], arch: string) =>
    shelf.open({ objects, unsupported: 'fail', filter: { arch } })
  await t.rejects(fail([task], 's390x'), {
    code: 'unsupported',
    details: { findings: [{ ...bigEndian }] },
  })
  await t.resolves(fail([task], 'x86_64'))
  const refused = await shelf.pack({
    objects: [task, ambiguous],
    unsupported: 'include',
    filter: { arch: 'x86_64' },
  })
  t.match(refused.findings, [{ code: 'unsupported', object: 'ambiguous.el.o', included: true }])
  const [whole] = await membersOf(PLAIN.xz!(refused.archive))
  t.ok(whole!.bytes.equals(rawOf('x86_64')), 'it is refused there as on the kernel')
})

t.test(
  'builds of one name: one member where they need the same, else none is better than a wrong one',
  async (t) => {
    const shelf = await shelfOf([
      { release: '6.1.0-1', package: '1' },
      { release: '6.1.0-1', package: '2', btf: 'i686' },
    ])
    const whole = await shelf.pack({})
    t.equal(whole.kernels, 0)
    t.match(whole.findings, [{ code: 'ambiguous', message: /different BTF: .*1/, included: false }])
    const plain = await shelf.pack({ objects: [objectFile('plain')] })
    t.equal(plain.kernels, 1)
    t.same(plain.findings, [])
    t.match((await shelf.pack({ objects: [task] })).findings, [
      { code: 'ambiguous', included: false },
    ])
    const newest = await shelf.pack({ unsupported: 'include' })
    t.equal(newest.kernels, 1)
    t.match(newest.findings, [{ code: 'ambiguous', included: true }])
    await t.rejects(shelf.open({ unsupported: 'fail' }), { code: 'unsupported' })
  },
)

t.test('a blob that is not whole is left out, told, and harms no other', async (t) => {
  const shelf = await shelfOf(KERNELS)
  await shelf.store.delete(blobKey(sha256Of(rawOf('x86_64'))))
  for (const objects of [[], [task]]) {
    const { kernels, findings } = await shelf.pack({ objects, unsupported: 'include' })
    t.equal(kernels, 1)
    t.equal(findings.length, KERNELS.length - 1)
    for (const finding of findings)
      t.match(finding, { code: 'damaged', message: /not_found/, included: false })
  }
})

t.test('what is asked for in vain', async (t) => {
  const shelf = await shelfOf([...KERNELS, { release: '6.1.0-1-arm64', arch: 'aarch64' }])
  await t.rejects(shelf.open({ filter: { distro: 'sles' } }), { code: 'unknown_kernel' })
  await t.rejects(shelf.open({ profile: 'datadog' }), {
    code: 'invalid_request',
    message: /x86_64/,
  })
  await t.rejects(shelf.open({ profile: 'bcc', zstd: true }), { code: 'invalid_request' })
  await t.rejects(shelf.open({ objects: [{ name: 'x', bytes: rawOf('x86_64') }] }), {
    name: 'BtfError',
    code: 'invalid_elf',
  })
})

t.test('who stops reading stops the work', async (t) => {
  const many = Array.from({ length: 40 }, (_, n) => ({
    release: `6.1.0-${n}`,
    btf: n % 2 ? 'i686' : 'x86_64',
  }))
  const { store, open } = await shelfOf(many)
  const get = store.get.bind(store)
  let reads = 0
  store.get = (key, range) => {
    reads++
    return get(key, range)
  }
  const archive = (await open({ profile: 'bcc' })).archive()
  for await (const _ of archive) break
  t.ok(archive.destroyed)
  const then = reads
  t.ok(then < many.length, `${then} read`)
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.equal(reads, then)
})

t.test('how much is in memory does not grow with the number of kernels', async (t) => {
  /** BTF that is read while who asked for a bundle of so many kernels, each with its own, takes nothing of it. */
  const readFor = async (kernels: number) => {
    const store = await openStore('memory:')
    for (let n = 0; n < kernels; n++) {
      const raw = Buffer.concat([rawOf('x86_64'), randomBytes(256 * 1024)]) // what does not become small
      await putRecord(store, recordOf({ release: `6.1.0-${n}` }, { btf: await btfOf(store, raw) }))
    }
    const { open } = await bundlesOf(store)
    const get = store.get.bind(store)
    let reads = 0
    store.get = (key, range) => {
      reads++
      return get(key, range)
    }
    const archive = (await open({ profile: 'bcc' })).archive()
    archive.read(0) // begins, and takes nothing
    for (let before = -1; before !== reads; await sleep(300)) before = reads
    archive.destroy()
    return reads
  }
  const [few, many] = [await readFor(30), await readFor(120)]
  t.ok(few < 30, `${few} of 30`)
  t.ok(many <= few + 4, `${few} of 30, ${many} of 120`)
})

t.test('bpftrace takes an unpacked member', async (t) => {
  const shelf = await shelfOf([{ release: '6.1.0-1' }])
  const directory = t.testdir()
  const list = async (name: string, objects: (typeof task)[]) => {
    mkdirSync(join(directory, name))
    const { archive: input } = await shelf.pack({ objects })
    execFileSync('tar', ['-xJ', '-C', join(directory, name)], { input })
    const env = {
      ...process.env,
      BPFTRACE_BTF: join(directory, name, 'debian/12/x86_64/6.1.0-1.btf'),
    }
    return execFileSync('bpftrace', ['-lv', 'struct task_struct'], { env, encoding: 'utf8' })
  }
  const [whole, least] = [await list('whole', []), await list('least', [task])]
  for (const member of ['comm[16]', 'group_leader', 'tgid']) {
    t.match(whole, member)
    t.match(least, member)
  }
})
