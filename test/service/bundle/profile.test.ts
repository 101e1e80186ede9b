// Each profile is read by a reader that follows the rules in the source of its consumer.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { decodeManifest } from '../../../service/bundle/manifest.ts'
import { PROFILES } from '../../../service/bundle/profile.ts'
import type { KernelName } from '../../../storage/index.ts'
import { buildRelocate, relocateWithLibbpf } from '../../bpf/oracle/libbpf.ts'
import {
  bundlesOfKernels,
  DECOMPRESSORS,
  KERNELS,
  membersOf,
  objectFile,
  rawOf,
} from '../../helpers/bundles.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'

/** A machine: its os-release, as the distribution writes it, and uname. */
interface Machine {
  osRelease: string
  machine: string
  release: string
}

const DEBIAN = {
  osRelease: 'PRETTY_NAME="Debian"\nVERSION_ID="12"\nID=debian\n',
  machine: 'x86_64',
  release: '6.1.0-9-amd64',
}
const SID = { osRelease: 'ID=debian\n', machine: 'x86_64', release: '7.0.1-amd64' }
const UBUNTU = {
  osRelease: 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="20.04"\n',
  machine: 'x86_64',
  release: '5.4.0-1001-aws',
}
const CENTOS = {
  osRelease: 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n',
  machine: 'x86_64',
  release: '3.10.0-1160.el7.x86_64',
}
const FEDORA = {
  osRelease: 'ID=fedora\nVERSION_ID=31\n',
  machine: 'x86_64',
  release: '5.3.7-301.fc31.x86_64',
}
/** `stored`: the store's version, where VERSION_ID has more digits */
const MACHINES: (Machine & { btf: string; stored?: string })[] = [
  ...[DEBIAN, SID, UBUNTU, FEDORA].map((machine) => ({ ...machine, btf: 'x86_64' })),
  { ...CENTOS, btf: 'i686' },
  { ...UBUNTU, machine: 'aarch64', btf: 'i686' },
]
/** Machines whose VERSION_ID is not the version under which the store has their kernels. */
const MINOR_VERSIONS = [
  ['rhel', '8', '8.6', '4.18.0-372.9.1.el8.x86_64'],
  ['rhel', '8', '8.10', '4.18.0-372.9.1.el8.x86_64'],
  ['ol', '7', '7.9', '3.10.0-1160.el7.x86_64'],
  ['almalinux', '9', '9.4', '5.14.0-427.13.1.el9_4.x86_64'],
  ['rocky', '9', '9.4', '5.14.0-427.13.1.el9_4.x86_64'],
  ['amzn', '2018', '2018.03', '4.14.355-190.624.amzn1.x86_64'],
  ['amzn', '2018', '2017.09', '4.14.33-51.37.amzn1.x86_64'],
] as const
for (const [id, stored, versionId, release] of MINOR_VERSIONS)
  MACHINES.push({
    osRelease: `ID="${id}"\nVERSION_ID="${versionId}"\n`,
    machine: 'x86_64',
    release,
    btf: 'x86_64',
    stored,
  })
const bundles = await bundlesOfKernels([
  ...KERNELS,
  ...MINOR_VERSIONS.map(([distro, version, , release]) => ({ distro, version, release })),
  { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: UBUNTU.release, btf: 'i686' },
])

/** Returns the value in the line `NAME=…` of an os-release, with its quotes. */
const field = (osRelease: string, name: string): string =>
  osRelease
    .split('\n')
    .find((line) => line.startsWith(`${name}=`))
    ?.slice(name.length + 1) ?? ''

/** As libbpf-tools/btf_helpers.c `tar_file_start`: returns the content behind the first header with this name. */
function readAsBcc(tar: Buffer, name: string): Buffer | undefined {
  const text = (at: number, size: number) => tar.toString('latin1', at, at + size).split('\0')[0]!
  for (let at = 0; tar[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12), 8)
    if (text(at, 512) === name) return tar.subarray(at + 512, at + 512 + size)
    at += 512 * (1 + Math.floor((size + 511) / 512))
  }
  return undefined
}

t.test('bcc: ensure_core_btf finds the BTF of each machine in the tar.gz', async (t) => {
  const { archive } = await bundles.pack({ profile: 'bcc' })
  const tar = gunzipSync(archive)
  for (const { osRelease, machine, release, btf } of MACHINES) {
    // get_os_info: "ID=%64s", "VERSION_ID=\"%64s" without the last character
    const id = field(osRelease, 'ID')
    const version = /^"(.*)/.exec(field(osRelease, 'VERSION_ID'))?.[1]?.slice(0, -1) ?? ''
    const name = `./${id}/${version}/${machine}/${release}.btf`
    t.ok(readAsBcc(tar, name)?.equals(rawOf(btf)), name)
  }
})

t.test(
  'bcc: headers are plain, and a path that does not fit a plain header is refused',
  async (t) => {
    const long = (length: number) => {
      const release = 'x'.repeat(length - './debian/12/x86_64/.btf'.length)
      return { distro: 'debian', version: '12', arch: 'x86_64', release }
    }
    t.equal(PROFILES.bcc.path(long(99)).length, 99)
    t.throws(() => PROFILES.bcc.path(long(100)), {
      code: 'not_representable',
      message: /100 bytes.*reads 99/,
    })
    t.throws(() => PROFILES.bcc.path({ ...long(50), release: 'é' }), { code: 'not_representable' })
    const { pack, open } = await bundlesOfKernels([long(99), long(100)])
    const { archive, findings, kernels } = await pack({ profile: 'bcc' })
    t.equal(kernels, 1)
    t.match(findings, [{ code: 'not_representable', kernel: long(100), included: false }])
    const tar = gunzipSync(archive)
    t.ok(readAsBcc(tar, PROFILES.bcc.path(long(99)))?.equals(rawOf('x86_64')))
    t.equal(
      tar.length,
      512 + Math.ceil(rawOf('x86_64').length / 512) * 512 + 1024,
      'no other header',
    )
    t.equal(tar[156], 0x30, 'a regular file')
    t.equal(tar[345], 0, 'no prefix')
    await t.rejects(open({ profile: 'bcc', unsupported: 'fail' }), { code: 'unsupported' })
  },
)

t.test(
  'inspektor-gadget: btfgen finds the BTF of each machine with a VERSION_ID in the tar.gz',
  async (t) => {
    const { archive, findings } = await bundles.pack({ profile: 'inspektor-gadget' })
    const members = await membersOf(gunzipSync(archive))
    for (const { osRelease, machine, release, btf } of MACHINES) {
      // GetOSInfo: ID with its quotes, VERSION_ID without; both are required
      const version = field(osRelease, 'VERSION_ID').replaceAll('"', '')
      if (version === '') continue
      const name = `${field(osRelease, 'ID')}/${version}/${machine}/${release}.btf`
      t.ok(members.find((member) => member.name === name)?.bytes.equals(rawOf(btf)), name)
    }
    t.match(findings, [
      { code: 'not_representable', kernel: { version: 'sid' }, message: /VERSION_ID/ },
    ])
  },
)

/** As Go's embed: the files below a pattern's directory, without those whose names it refuses. */
const embedded = (names: readonly string[]): string[] =>
  names.filter((name) => name.split('/').every((part) => /^(?![._])[^"*<>?`'|\\:]+$/.test(part)))

t.test(
  'inspektor-gadget-embed: the binary of each architecture finds the BTF of each machine that it can look up',
  async (t) => {
    const { archive, findings } = await bundles.pack({ profile: 'inspektor-gadget-embed' })
    const directory = t.testdir()
    execFileSync('tar', ['-xJ', '-C', directory], { input: archive })
    const names = (await membersOf(DECOMPRESSORS.xz!(archive)))
      .filter(({ name }) => name.endsWith('.btf'))
      .map(({ name }) => name)
    t.same(embedded(names), names, 'go:embed takes all of them')
    let found = 0
    for (const { osRelease, machine, release, btf } of MACHINES) {
      // initialize: GOARCH with x86 for amd64, then GetOSInfo, whose ID has the quotes of os-release
      const goArch = machine === 'aarch64' ? 'arm64' : 'x86'
      const id = field(osRelease, 'ID')
      const version = field(osRelease, 'VERSION_ID').replaceAll('"', '')
      const name = `btfs/${goArch}/${id}/${version}/${machine}/${release}.btf`
      if (version === '' || embedded([name]).length === 0) continue
      found++
      t.ok(readFileSync(join(directory, name)).equals(rawOf(btf)), name)
    }
    t.equal(found, 4)
    t.equal(names.length, 5, 'and one more kernel of Debian 12')
    t.ok(findings.every(({ code }) => code === 'not_representable'))
    const reasons = (distro: string) =>
      findings.find(({ kernel }) => kernel.distro === distro)?.message ?? ''
    t.match(reasons('centos'), /looks for ID with quotes/)
    t.match(reasons('debian'), /no numeric VERSION_ID/)
    const { path } = PROFILES['inspektor-gadget-embed']
    const kernel = { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0+b-amd64' }
    t.equal(path(kernel), 'btfs/x86/debian/12/x86_64/6.1.0+b-amd64.btf')
    t.throws(() => path({ ...kernel, arch: 's390x' }), { code: 'not_representable' })
    for (const release of ['_a', '.a', 'a:b', 'a"b'])
      t.throws(() => path({ ...kernel, release }), { code: 'not_representable' }, release)
  },
)

t.test('auditbeat: a flat directory has the BTF of each kernel of one architecture', async (t) => {
  await t.rejects(bundles.open({ profile: 'auditbeat' }), { code: 'invalid_request' })
  const filter = { arch: 'x86_64', distro: ['debian', 'ubuntu', 'centos', 'fedora'] }
  const { archive } = await bundles.pack({ profile: 'auditbeat', filter })
  const directory = t.testdir()
  execFileSync('tar', ['-xJ', '-C', directory], { input: archive })
  const names = (await membersOf(DECOMPRESSORS.xz!(archive)))
    .filter(({ type }) => type === 'file' || type === 'link')
    .map(({ name }) => name)
  t.ok(names.every((name) => /^embed\/[^/]+\.btf$/.test(name)))
  t.same(embedded(names), names, 'go:embed takes all of them')
  for (const { osRelease, machine, release, btf } of MACHINES)
    if (machine === 'x86_64' && filter.distro.includes(field(osRelease, 'ID').replaceAll('"', '')))
      t.ok(readFileSync(join(directory, `embed/${release}.btf`)).equals(rawOf(btf)), release)
  const shared = { profile: 'auditbeat', filter: { distro: ['centos', 'ol'] } } as const
  t.match((await bundles.pack(shared)).findings, [
    { kernel: { release: CENTOS.release }, included: false },
  ])
})

t.test('a profile for one architecture refuses two that share a path', async (t) => {
  const { open } = await bundlesOfKernels([
    { distro: 'ubuntu', version: '20.04', release: '5.4.0-1001-aws' },
    { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: '5.4.0-1001-aws', btf: 'i686' },
  ])
  for (const profile of ['auditbeat', 'datadog'] as const)
    await t.rejects(open({ profile }), { code: 'invalid_request', message: /one of/ }, profile)
})

t.test(
  'datadog: the agent finds a tar.xz for each machine of one architecture in the tar.xz',
  async (t) => {
    const { archive } = await bundles.pack({ profile: 'datadog', filter: { arch: 'amd64' } })
    const file = join(t.testdir(), 'minimized-btfs.tar.xz')
    writeFileSync(file, archive)
    const listed = execFileSync('xz', ['--list', '-vv', file], { encoding: 'utf8' })
    const windows = [...listed.matchAll(/dict=(\d+)(K|M)iB/g)].map(
      ([, n, unit]) => Number(n) * (unit === 'M' ? 1024 : 1),
    )
    t.ok(
      windows.length > 0 && Math.max(...windows) <= 64 * 1024,
      'xi2/xz supports dictionaries up to 64 MiB',
    )
    const members = await membersOf(DECOMPRESSORS.xz!(archive))
    for (const { osRelease, machine, release, btf } of MACHINES) {
      if (machine !== 'x86_64' || /almalinux|rocky/.test(osRelease)) continue
      // getEmbeddedBTF: the platform, the version (Ubuntu only), the release
      const id = field(osRelease, 'ID').replaceAll('"', '')
      const version = field(osRelease, 'VERSION_ID').replaceAll('"', '')
      const path = [id, ...(id === 'ubuntu' ? [version] : []), `${release}.btf.tar.xz`].join('/')
      const member = members.find(({ name, type }) => type === 'file' && name === path)
      const [inner, ...others] = await membersOf(DECOMPRESSORS.xz!(member!.bytes))
      t.match(inner, { type: 'file', name: `${release}.btf` }, path)
      t.ok(inner!.bytes.equals(rawOf(btf)))
      t.same(others, [])
    }
    const { findings } = await (
      await bundlesOfKernels([{ distro: 'arch', version: 'rolling' }])
    ).pack({
      profile: 'datadog',
    })
    t.match(findings, [
      { code: 'not_representable', message: /does not know the distribution arch/ },
    ])
  },
)

t.test(
  'btfhub: the tar has the tree of btfhub-archive, and each member is a tar.xz with one file',
  async (t) => {
    const { archive, manifest } = await bundles.pack({ profile: 'btfhub' })
    const directory = t.testdir()
    execFileSync('tar', ['-x', '-C', directory], { input: archive })
    for (const { osRelease, machine, release, btf, stored } of MACHINES) {
      const id = field(osRelease, 'ID').replaceAll('"', '')
      const version = stored ?? (field(osRelease, 'VERSION_ID').replaceAll('"', '') || 'sid')
      const path = `${id}/${version}/${machine === 'aarch64' ? 'arm64' : machine}/${release}.btf.tar.xz`
      execFileSync('tar', ['-xJf', join(directory, path), '-C', directory])
      t.ok(readFileSync(join(directory, `${release}.btf`)).equals(rawOf(btf)), path)
      t.ok(decodeManifest(manifest).kernels.some((kernel) => kernel.path === path))
    }
  },
)

t.test(
  'tree: each machine finds its BTF by os-release, and no content is stored twice',
  async (t) => {
    const { archive, kernels } = await bundles.pack({})
    const tar = DECOMPRESSORS.xz!(archive)
    const directory = t.testdir()
    execFileSync('tar', ['-x', '-C', directory], { input: tar })
    for (const { osRelease, machine, release, btf } of MACHINES) {
      const id = field(osRelease, 'ID').replaceAll('"', '')
      const version = field(osRelease, 'VERSION_ID').replaceAll('"', '') || 'sid'
      const arch = machine === 'aarch64' ? 'arm64' : machine
      const path = join(directory, id, version, arch, `${release}.btf`)
      t.ok(readFileSync(path).equals(rawOf(btf)), path)
    }
    const members = await membersOf(tar)
    const files = members.filter(({ type, name }) => type === 'file' && name.endsWith('.btf'))
    t.equal(files.length, 2, 'all other members are links')
    t.ok(members.some(({ name, type }) => type === 'link' && name.startsWith('rhel/8.10/')))
    t.equal(kernels, 13, 'a kernel with several members counts once')
  },
)

t.test('a version whose VERSION_IDs are not known is reported, not written', async (t) => {
  const { pack } = await bundlesOfKernels([{ distro: 'rhel', version: '99' }])
  for (const profile of ['bcc', 'inspektor-gadget', 'tree'] as const)
    t.match((await pack({ profile })).findings, [
      { code: 'not_representable', message: /VERSION_ID for rhel 99 are not known/ },
    ])
})

t.test('tree: libbpf relocates against an unpacked member as against the whole BTF', async (t) => {
  const { archive } = await bundles.pack({ objects: [objectFile('task')] })
  const directory = t.testdir()
  mkdirSync(join(directory, 'tree'))
  execFileSync('tar', ['-xJ', '-C', join(directory, 'tree')], { input: archive })
  const harness = [await buildRelocate(directory)]
  const object = coreObjects('el').get('task')!
  const member = join(directory, 'tree/debian/12/x86_64/6.1.0-10-amd64.btf')
  const decisions = async (btf: string) =>
    (await relocateWithLibbpf(harness, object, btf)).decisions.map(
      ({ candidates: _, ...rest }) => rest,
    )
  t.same(await decisions(member), await decisions(littleKernels().get('x86_64')!))
})

t.test('no profile gives a path that leads out of the directory', async (t) => {
  const kernel: KernelName = {
    distro: 'debian',
    version: '12',
    arch: 'x86_64',
    release: '../../etc/passwd',
  }
  for (const profile of [
    'bcc',
    'inspektor-gadget',
    'inspektor-gadget-embed',
    'datadog',
    'auditbeat',
  ] as const)
    t.throws(() => PROFILES[profile].path(kernel), { code: 'not_representable' }, profile)
  for (const profile of ['btfhub', 'tree'] as const)
    t.notMatch(PROFILES[profile].path(kernel), '/../', profile)
})
