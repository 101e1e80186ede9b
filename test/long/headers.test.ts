// Partial BTF of Debian's kernel headers against the BTF that the same kernels have: layouts, objects of others, checks.
// And a kernel without BTF: the agent runs on it with BTF of its headers.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import {
  ambiguousStructs,
  type BpfObject,
  type Btf,
  type BtfType,
  checkObject,
  compareLayouts,
  describeKernelBtf,
  describeVmlinux,
  memorySource,
  openObject,
  parseBtf,
  printHeader,
  type RelocationOutcome,
  relocate,
  type StructLayout,
} from '../../bpf/index.ts'
import { sureTypes } from '../../bpf/sure-types.ts'
import { LIST_DIGEST } from '../../generator/headers/header-list.ts'
import { findPackages, generate, type KernelPackage } from '../../generator/index.ts'
import { jobOf } from '../../generator/jobs/job.ts'
import { openLocalQueue } from '../../generator/jobs/local-queue.ts'
import { findPahole } from '../../generator/jobs/pahole.ts'
import { unpackVmlinuz } from '../../generator/packages/vmlinuz.ts'
import { fetchImage } from '../../generator/prove/image.ts'
import { withScratch } from '../../generator/scratch.ts'
import {
  type BuildRecord,
  Catalog,
  getBlob,
  openStore,
  partialOf,
  putRecord,
} from '../../storage/index.ts'
import { serve } from '../e2e/btfmill.ts'
import { bootGuest, buildGuest } from '../e2e/path.ts'
import { TARGETS } from '../e2e/target.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'
import { objectsFor } from './agreement-objects.ts'

const FOLDER = join(import.meta.dirname, '../../.cache/headers')
const AGREEMENT = join(import.meta.dirname, '../../.cache/agreement')

/** Compilers for kernels of other architectures, by those of Debian; without them clang compiles. */
const CROSS = ['gcc-aarch64-linux-gnu', 'gcc-riscv64-linux-gnu', 'gcc-s390x-linux-gnu']

/** The newest kernel of each row that the mirror has is used; `BTFMILL_HEADERS_KERNEL` leaves only some. */
const KERNELS: readonly Record<'version' | 'arch' | 'release', string>[] = [
  { version: '11', arch: 'x86_64', release: '5.10.*-cloud-amd64' },
  { version: '12', arch: 'x86_64', release: '6.1.*-cloud-amd64' },
  { version: '12', arch: 'x86_64', release: '6.12.*-cloud-amd64' },
  { version: '13', arch: 'x86_64', release: '7.*-cloud-amd64' },
  { version: '11', arch: 'aarch64', release: '5.10.*-cloud-arm64' },
  { version: '12', arch: 'aarch64', release: '6.1.*-cloud-arm64' },
  { version: '12', arch: 'aarch64', release: '6.12.*-cloud-arm64' },
  { version: '13', arch: 'aarch64', release: '7.*-cloud-arm64' },
  { version: '13', arch: 'riscv64', release: '6.12.*-riscv64' },
  // big-endian; before 6.12 Debian's have no BTF
  { version: '12', arch: 's390x', release: '6.12.*-s390x' },
  { version: '13', arch: 's390x', release: '6.12.*-s390x' },
  { version: 'sid', arch: 's390x', release: '7.*-s390x' },
  { version: '13', arch: 's390x', release: '7.*-s390x' },
]
/** `libbpf-tools` of https://github.com/iovisor/bcc, to be compiled. */
const TOOLS = process.env.BTFMILL_LIBBPF_TOOLS

/** Structs and unions that are equal at least. */
const LEAST = { x86_64: 2600, aarch64: 2500, riscv64: 2300, s390x: 2100 }
/** Packages that are tried for a row: the index may list what the mirror has lost. */
const TRIES = 8

const chosen = KERNELS.filter(({ arch, release }) =>
  `${arch} ${release}`.includes(process.env.BTFMILL_HEADERS_KERNEL ?? ''),
)
const online =
  process.env.BTFMILL_OFFLINE === '1'
    ? { skip: 'BTFMILL_OFFLINE=1: needs the mirror of a distribution' }
    : {}

mkdirSync(FOLDER, { recursive: true })
const store = await openStore(`file:${join(FOLDER, 'store')}`)
const cache = join(FOLDER, 'indexes')

/** A kernel with the BTF of its headers and its own. */
interface Pair {
  record: BuildRecord
  part: Btf
  own: Btf
}
const pairs: Pair[] = []

/** Makes the partial BTF of a package, unless the store has it. */
async function partialBtfOf(found: KernelPackage): Promise<BuildRecord | undefined> {
  const known = (await Catalog.open(partialOf(store))).find(found.kernel)[0]
  if (known?.btf && known.headers?.list === LIST_DIGEST) return known
  const tool = await findPahole()
  const queue = await openLocalQueue({ store, tool })
  const result = await queue.run(jobOf(found, { from: 'headers' }))
  if (result.state === 'published') return result.record
  if (result.state === 'failed') t.comment(found.kernel.release, result.failure)
  return undefined
}

/** The kernel's own BTF. */
async function ownBtfOf({ kernel }: BuildRecord): Promise<Btf | undefined> {
  const { distro, version, arch, release } = kernel
  const filter = { distro, version, arch, release }
  await generate({ store, filter, from: 'embedded', cache })
  const [record] = (await Catalog.open(store)).find(kernel)
  return record?.btf && parseBtf(await getBlob(store, record.btf.sha256))
}

async function headersOfRow(row: (typeof KERNELS)[number]): Promise<BuildRecord | undefined> {
  const filter = { distro: 'debian', ...row }
  const { packages } = await findPackages({ store, filter, roles: ['devel'], cache })
  const plain = packages.filter(({ kernel }) => !/-rt-|16k/.test(kernel.release))
  for (const found of plain.slice(0, TRIES)) {
    const record = await partialBtfOf(found)
    if (record) return record
  }
  return undefined
}

/**
 * A layout in which a bitfield that fills its type is a member like any other, since compilers describe it in either way:
 * `u8 reserved:8` has the same offset and size.
 */
const plain = ({ members, ...rest }: StructLayout): string =>
  JSON.stringify({
    ...rest,
    members: members.map(({ name, offset, bitfieldSize }) => {
      const isWhole = [8, 16, 32, 64].includes(bitfieldSize) && offset % bitfieldSize === 0
      return [name, offset, isWhole ? 0 : bitfieldSize]
    }),
  })

/** The names of structs and unions that differ. */
function differences(part: Btf, own: Btf): string[] {
  const { different } = compareLayouts(part, own)
  const names = new Set(different.map(({ name }) => name))
  const theirs = compareLayouts(own, parseBtf(part.bytes)).different.filter(({ name }) =>
    names.has(name),
  )
  const known = new Set(theirs.map(plain))
  return different.filter((layout) => !known.has(plain(layout))).map(({ name }) => name)
}

const namesIn = (btf: Btf): Set<string> => {
  const names = new Set<string>()
  for (const type of btf.types())
    if ((type.kind === 'STRUCT' || type.kind === 'UNION') && type.name !== '')
      names.add(`${type.kind} ${type.name}`)
  return names
}

t.before(() => {
  if (online.skip) return
  const install = ['install', '--yes', '--no-install-recommends', ...CROSS]
  try {
    execFileSync('apt-get', install, { stdio: 'pipe' })
  } catch (error) {
    t.comment(
      'no cross compilers: clang compiles for other architectures',
      (error as Error).message,
    )
  }
})

for (const row of chosen) {
  t.test(
    `every type of ${row.arch} ${row.release} in its headers is as the kernel has it`,
    online,
    async (t) => {
      const record = await headersOfRow(row)
      if (!record) return void t.pass('', { skip: 'the mirror has no such headers now' })
      const own = await ownBtfOf(record)
      if (!own) return void t.pass('', { skip: 'the mirror has no such kernel now' })
      const raw = await getBlob(partialOf(store), record.btf!.sha256)
      t.throws(() => describeKernelBtf(raw), { code: 'not_kernel' }, 'nothing takes it for whole')
      const part = parseBtf(raw)
      pairs.push({ record, part, own })
      t.same(differences(part, own), [])
      const [mine, theirs] = [namesIn(part), namesIn(own)]
      const covered = [...mine].filter((name) => theirs.has(name)).length
      t.ok(covered >= LEAST[row.arch as keyof typeof LEAST], `${covered} are equal`)
      t.ok(
        record.headers!.offsets > 20,
        `${record.headers!.offsets} offsets are as the build wrote them`,
      )
      const { compiler, compiled, failed } = record.headers!
      const share = ((100 * covered) / theirs.size).toFixed(1)
      t.comment(
        `${record.kernel.release} ${compiler.name} ${compiler.version}: ${covered} of ${theirs.size} (${share} %), ${mine.size - covered} not in the kernel, ${compiled} headers, ${failed} failed`,
      )
    },
  )
}

/** The build-id of a kernel, which its headers do not tell. */
async function buildIdOf(record: BuildRecord, directory: string): Promise<string> {
  const image = join(directory, 'image')
  mkdirSync(image)
  await fetchImage(record, image, { store: await openStore('memory:') })
  const unpacked = await unpackVmlinuz(readFileSync(join(image, 'vmlinuz')))
  return describeVmlinux(memorySource(unpacked)).buildId ?? ''
}

/** An outcome as text. */
const textOf = (outcome: RelocationOutcome): string =>
  JSON.stringify(outcome, (_, value) => (typeof value === 'bigint' ? String(value) : value))

/** The types that an object lacks in partial BTF, by name, as `check` tells; undefined if it relocates as on the kernel. */
function lackedBy(object: BpfObject, part: Btf, own: Btf): string[] | undefined {
  const [ours, theirs] = [part, own].map((btf) => relocate(object, btf).relocations)
  const isEqual = ours!.every(
    ({ relocation: { kind }, outcome }, n) =>
      kind === 'target_type_id' || textOf(outcome) === textOf(theirs![n]!.outcome),
  )
  if (isEqual) return undefined
  const check = checkObject(object, part, { partial: true })
  const reasons = [...check.reasons, ...check.programs.flatMap((program) => program.reasons)]
  const missing = reasons.filter(({ code }) => /^(not_covered|missing_type)$/.test(code))
  return [...new Set(missing.map(({ access = '' }) => access.split(/->|:/)[0]!))]
}

/** Asserts that most objects relocate wholly, and that `check` names what the others lack. */
function assertMostRelocate(
  t: Test,
  objects: ReadonlyMap<string, BpfObject>,
  { record, part, own }: Pair,
  least: number,
): void {
  const lacking: string[] = []
  for (const [name, object] of objects) {
    const lacked = lackedBy(object, part, own)
    if (!lacked) continue
    t.ok(lacked.length > 0, `${name}: check names what is missing`)
    lacking.push(`${name} (${lacked.join(', ')})`)
  }
  const whole = objects.size - lacking.length
  t.comment(
    `${record.kernel.release}: ${whole} of ${objects.size} objects relocate as on the kernel; not ${lacking.join('; ')}`,
  )
  t.ok(whole >= least, `${whole} of ${objects.size}`)
}

const ofX86 = () => pairs.filter(({ record }) => record.kernel.arch === 'x86_64')

t.test(
  "most of bcc's tools relocate wholly, and check tells what the others lack",
  online,
  async (t) => {
    const paths = await objectsFor(AGREEMENT, 'x86_64', 'little')
    const tools = paths.filter((path) => /objects-x86_64-12\//.test(path))
    const objects = new Map(
      tools.map((path) => [basename(path), openObject(readFileSync(path))] as const),
    )
    for (const pair of ofX86()) assertMostRelocate(t, objects, pair, (31 / 39) * objects.size)
  },
)

t.test(
  "the newest of bcc's tools relocate as well, as far as they compile",
  TOOLS === undefined ? { skip: 'BTFMILL_LIBBPF_TOOLS is not set' } : online,
  async (t) => {
    for (const pair of ofX86()) {
      await withScratch(undefined, async (dir) => {
        writeFileSync(join(dir, 'vmlinux.h'), [...printHeader(pair.own)].join(''))
        const objects = new Map<string, BpfObject>()
        for (const name of readdirSync(TOOLS!).filter((file) => file.endsWith('.bpf.c'))) {
          const output = join(dir, `${name}.o`)
          const target = ['-g', '-O2', '-target', 'bpf', '-D__TARGET_ARCH_x86']
          // the folder's own vmlinux.h is in a folder of each architecture
          const search = [`-I${dir}`, `-I${TOOLS}`, '-idirafter', '/usr/include/x86_64-linux-gnu']
          const args = [...target, ...search, '-c', join(TOOLS!, name), '-o', output]
          if (spawnSync('clang', args).status === 0)
            objects.set(name, openObject(readFileSync(output)))
        }
        assertMostRelocate(t, objects, pair, 31)
      })
    }
  },
)

/** Kind and name of a type, as libbpf looks candidates up. */
const keyOf = ({ kind, name }: BtfType): string =>
  `${kind === 'ENUM64' ? 'ENUM' : kind} ${name.replace(/___[^_].*$/, '')}`

t.test('every type that partial BTF is sure of is in the kernel, in one form', online, (t) => {
  for (const { record, part, own } of pairs) {
    const theirs = new Set([...own.types()].map(keyOf))
    const several = new Set(ambiguousStructs(own))
    const sure = sureTypes(part)
    const named = [...part.types()].filter(({ name }) => name !== '')
    const vouched = named.filter(({ id }) => sure[id] === 1)
    const wrong = vouched.filter((type) => !theirs.has(keyOf(type)) || several.has(type.name))
    t.same(wrong.map(keyOf), [], record.kernel.release)
    t.comment(`${record.kernel.release}: sure of ${vouched.length} of ${named.length} named types`)
  }
  t.end()
})

/** An object of another kernel's architecture relocates as well, unless its byte order differs. */
const objectsOf = ({ kernel: { arch } }: BuildRecord): Promise<string[]> => {
  if (arch === 's390x') return objectsFor(AGREEMENT, 's390x', 'big')
  return objectsFor(AGREEMENT, arch === 'aarch64' ? 'aarch64' : 'x86_64', 'little')
}

t.test('check gives yes nowhere where the whole BTF gives another verdict', online, async (t) => {
  for (const { record, part, own } of pairs) {
    const counts = { yes: 0, cannot_tell: 0, no: 0 }
    for (const path of await objectsOf(record)) {
      const object = openObject(readFileSync(path))
      const facts = { release: record.kernel.release }
      const ours = checkObject(object, part, { ...facts, partial: true })
      const theirs = checkObject(object, own, facts)
      counts[ours.verdict]++
      for (const kind of ['verdict', 'loads'] as const)
        if (ours[kind] === 'yes') t.equal(theirs[kind], 'yes', `${kind} of ${path}`)
        else if (ours[kind] === 'no') t.equal(theirs[kind], 'no', `${kind} of ${path}`)
      for (const [n, program] of ours.programs.entries())
        for (const kind of ['verdict', 'loads'] as const)
          if (program[kind] === 'yes' && theirs.programs[n]![kind] !== 'yes')
            t.fail(`${program.name} of ${path} on ${record.kernel.release}: ${kind}`)
    }
    t.comment(`${record.kernel.release}: ${JSON.stringify(counts)}`)
  }
})

t.test(
  'the agent reads right values on a kernel without BTF, with BTF of its headers',
  online,
  async (t) => {
    const row = { version: '12', arch: 'i686', release: '6.1.*-686-pae' }
    const record = await headersOfRow(row)
    if (!record) return void t.pass('', { skip: 'the mirror has no such headers now' })
    t.equal(record.embedded, false)
    await withScratch(undefined, async (dir) => {
      const raw = await getBlob(partialOf(store), record.btf!.sha256)
      // the guest asks as any agent does: here its service has the partial BTF under the kernel's name
      const url = `file:${join(dir, 'store')}`
      const home = await openStore(url)
      const served = recordOf(
        { ...record.kernel, buildId: await buildIdOf(record, dir) },
        { package: record.package, embedded: false, btf: await btfOf(home, raw) },
      )
      await putRecord(home, served)
      const btf = join(dir, 'btf')
      writeFileSync(btf, raw)
      const server = await serve(url)
      t.teardown(() => server.stop())
      const { guest } = await buildGuest(TARGETS.i686, served, { btf, store: url }, dir)
      const console = await bootGuest(guest, server.port)
      t.match(console, { release: record.kernel.release, embedded: false })
      for (const [name, { reported }] of console.runs)
        t.equal(reported.length, name === 'none' ? 0 : 2, name)
    })
  },
)
