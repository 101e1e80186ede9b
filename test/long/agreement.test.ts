/*
 * Agreement by proof: the verdicts of `checkObject` against kernels that boot in QEMU. Each kernel boots once and loads all
 * objects, as `btfmill prove` does; each program of an object that does not load is loaded alone, too. A "no" must not
 * load. A "yes" must not fail for a reason that `check` knows. What the guests said is kept in `.cache/agreement` until
 * the loader or the objects change. Maps without a size get one, as the tools set it that the objects are from.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { type ByteOrder, checkObject, openObject, parseBtf, type Verdict } from '../../bpf/index.ts'
import { generate } from '../../generator/index.ts'
import { kept } from '../../generator/prove/kept.ts'
import { prove } from '../../generator/prove/prove.ts'
import { type LoaderReport, readLoaderReport } from '../../generator/prove/report.ts'
import {
  type BuildRecord,
  Catalog,
  getBlob,
  type KernelFilter,
  openStore,
} from '../../storage/index.ts'
import { knownReasonIn } from '../bpf/oracle/known-reason.ts'
import { nameOfObject, objectsFor } from './agreement-objects.ts'

const online =
  process.env.BTFMILL_OFFLINE === '1'
    ? { skip: 'BTFMILL_OFFLINE=1: needs the mirror of a distribution' }
    : {}
const CACHE = join(import.meta.dirname, '../../.cache/agreement')
/** A guest without KVM needs minutes. */
const SECONDS = 3600

interface Row {
  filter: Required<Pick<KernelFilter, 'version' | 'arch' | 'release'>>
  /** it has BTF of its own; for one without, BTF is made of its debug info */
  embedded: boolean
  byteOrder: ByteOrder
  /** whose objects it loads */
  objects: string
}

const row = (version: string, arch: string, release: string): Row => ({
  filter: { version, arch, release },
  embedded: arch === 'x86_64' || arch === 'aarch64',
  byteOrder: arch === 's390x' ? 'big' : 'little',
  objects: arch === 'i686' ? 'x86_64' : arch,
})

/** The newest match of each row that the store or the mirror has. */
const ROWS = [
  row('11', 'x86_64', '5.10.0-*-cloud-amd64'),
  row('12', 'x86_64', '6.1.0-*-cloud-amd64'),
  row('12', 'i686', '6.1.0-??-686-pae'),
  row('13', 'x86_64', '6.12.*-cloud-amd64'),
  row('13', 'x86_64', '7.*-cloud-amd64'),
  row('12', 'aarch64', '6.1.0-*-cloud-arm64'),
  row('12', 's390x', '6.1.0-*-s390x'),
]
const ONLY = process.env.BTFMILL_AGREEMENT_KERNEL

/** Generates the kernel of a row, unless the store has one. */
async function recordOf({ filter: wanted, embedded }: Row): Promise<BuildRecord> {
  const filter = { distro: 'debian', ...wanted }
  const store = await openStore(`file:${join(CACHE, 'store')}`)
  for (const isLast of [false, true]) {
    for (const { record } of (await Catalog.open(store)).list(filter)) {
      if (record.btf) return record
    }
    if (isLast) break
    const cache = join(CACHE, 'indexes')
    await generate({
      store,
      filter,
      limit: 1,
      cache,
      earlyStop: true,
      from: embedded ? 'embedded' : 'debug',
    })
  }
  throw new Error(`no kernel matches ${JSON.stringify(filter)}`)
}

/** What libbpf and the verifier of a booted kernel say of objects, in their order. */
async function reportsOf(record: BuildRecord, btf: Buffer, paths: readonly string[]) {
  const { release } = record.kernel
  const hash = createHash('sha256').update(
    readFileSync(join(import.meta.dirname, '../../generator/prove/load.c')),
  )
  for (const path of paths) hash.update(await readFile(path))
  const name = `result-${release}-${record.package.version}-${hash.digest('hex').slice(0, 16)}`
  const directory = await kept(CACHE, name, async (into) => {
    const begun = Date.now()
    const { objects, ...guest } = await prove({
      ...{ store: await openStore('memory:'), kernel: record, btf, cache: CACHE },
      ...{ objects: paths, sizeMaps: true, seconds: SECONDS },
    })
    const reports = objects.map(({ output }) => readLoaderReport(output))
    const seconds = Math.round((Date.now() - begun) / 1000)
    await writeFile(join(into, 'reports.json'), JSON.stringify({ ...guest, reports, seconds }))
  })
  const text = await readFile(join(directory, 'reports.json'), 'utf8')
  return JSON.parse(text) as {
    release: string
    ownBtf: boolean
    reports: (LoaderReport | null)[]
    /** that the guest took, with its downloads */
    seconds: number
  }
}

const OUTCOMES = [
  'yes, loads',
  'no, fails',
  'yes, fails for another reason',
  'cannot tell',
  'yes, fails for a known reason',
  'no, loads',
] as const
type Outcome = (typeof OUTCOMES)[number]
const DISAGREEMENTS: readonly Outcome[] = ['yes, fails for a known reason', 'no, loads']

function outcomeOf(verdict: Verdict, error: number, log: readonly string[]): Outcome {
  if (verdict === 'cannot_tell') return 'cannot tell'
  if (verdict === 'no') return error === 0 ? 'no, loads' : 'no, fails'
  if (error === 0) return 'yes, loads'
  return knownReasonIn(log) ? 'yes, fails for a known reason' : 'yes, fails for another reason'
}

/** The last line of a log that tells something. */
const lastOf = (log: readonly string[]): string =>
  log.filter((line) => !/failed to load|^processed |PROG LOAD LOG/.test(line)).at(-1) ?? ''

class Counts {
  readonly counts = new Map<Outcome, number>()
  add(outcome: Outcome) {
    this.counts.set(outcome, (this.counts.get(outcome) ?? 0) + 1)
  }
  get sum() {
    return [...this.counts.values()].reduce((a, b) => a + b, 0)
  }
  cells = () => OUTCOMES.map((outcome) => `${this.counts.get(outcome) ?? 0}`)
}

const table = [['kernel', 'of', ...OUTCOMES, 'seconds']]

let [untold, all] = [0, 0]

for (const one of ROWS) {
  const { filter, byteOrder } = one
  const title = `${filter.release} on ${filter.arch} agrees with the verdicts`
  if (ONLY !== undefined && !filter.release.includes(ONLY)) continue
  t.test(title, { ...online, timeout: 2 * SECONDS * 1000 }, async (t) => {
    const record = await recordOf(one)
    const { release } = record.kernel
    const bytes = await getBlob(await openStore(`file:${join(CACHE, 'store')}`), record.btf!.sha256)
    const paths = await objectsFor(CACHE, one.objects, byteOrder)
    const { reports, ownBtf, seconds } = await reportsOf(record, bytes, paths)
    t.equal(ownBtf, record.embedded, 'the record tells whether the kernel has BTF of its own')
    const kernel = parseBtf(bytes)
    const [objects, programs] = [new Counts(), new Counts()]
    for (const [n, path] of paths.entries()) {
      const report = reports[n]
      const name = nameOfObject(path)
      if (!report) {
        t.fail(`the loader ended before it had a result: ${name}`)
        continue
      }
      const check = checkObject(openObject(await readFile(path)), kernel, {
        release,
        ...(record.embedded !== undefined && { hasOwnBtf: record.embedded }),
      })
      const told = [report, ...report.programs].flatMap(({ log }) => log)
      const compare = (counts: Counts, outcome: Outcome, what: string, log: readonly string[]) => {
        counts.add(outcome)
        if (DISAGREEMENTS.includes(outcome))
          t.fail(`${what}: ${outcome}`, { log: log.slice(-12), reasons: check.reasons })
        else if (outcome !== 'yes, loads' && outcome !== 'no, fails')
          t.comment(`${what}: ${outcome}: ${knownReasonIn(log) ?? lastOf(log)}`)
      }
      compare(objects, outcomeOf(check.loads, report.error, told), name, told)
      for (const { name: program, section, error, log } of report.programs) {
        const checked = check.programs.find(
          (one) => one.name === program && one.section === section,
        )
        if (!checked) continue
        const verdict = worst([checked.loads, ...check.reasons.map(({ verdict }) => verdict)])
        compare(programs, outcomeOf(verdict, error, log), `${name} ${program} (${section})`, log)
      }
    }
    table.push([release, `${objects.sum} objects`, ...objects.cells(), `${seconds}`])
    table.push(['', `${programs.sum} programs`, ...programs.cells(), ''])
    untold += objects.counts.get('cannot tell') ?? 0
    all += objects.sum
  })
}

t.test('less than a tenth of the objects cannot be told', online, (t) => {
  t.comment(`${untold} of ${all}`)
  t.ok(untold < all / 10)
  t.end()
})

function worst(verdicts: readonly Verdict[]): Verdict {
  if (verdicts.includes('no')) return 'no'
  return verdicts.includes('cannot_tell') ? 'cannot_tell' : 'yes'
}

t.teardown(() => {
  for (const cells of table) console.log(`# | ${cells.join(' | ')} |`)
})
