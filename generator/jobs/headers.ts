/*
 * The way from header packages to partial BTF: collect one tree of headers → read its facts → compile → pahole → check →
 * publish in the store of partial BTF. The other units of the list are encoded over the first, as modules are over a
 * kernel, and merged.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Btf, BtfError, mergeBtf, parseBtf, typesOnly } from '../../bpf/index.ts'
import {
  type BuildRecord,
  type HeadersInfo,
  putBlob,
  putRecord,
  type Tool,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { Stage } from '../event.ts'
import { type CompiledHeaders, HeaderCompilation } from '../headers/compile.ts'
import { findCompiler, type HeaderCompiler } from '../headers/compiler.ts'
import { type HeaderFacts, readFacts } from '../headers/configuration.ts'
import { LIST_DIGEST } from '../headers/header-list.ts'
import { checkOffsets } from '../headers/offsets.ts'
import {
  addPackage,
  type HeaderPackage,
  type HeaderPackageReceipt,
  headerDirectories,
} from '../headers/package.ts'
import { Sandbox } from '../headers/sandbox.ts'
import { HeaderTree } from '../headers/tree.ts'
import type { DownloadOptions } from '../packages/download.ts'
import { checkBtf } from './check.ts'
import type { Job } from './job.ts'
import { encodeBtf, type PaholeLimits } from './pahole.ts'

/** btfmill's own part of the fingerprint; increased when btfmill would make other BTF of the same headers. */
const HEADERS_VERSION = 1
/** Headers that a record names with the compiler's message. */
const MAX_FAILURES = 20
/** Characters of a list's digest that tell lists apart. */
const DIGEST_PART = 16

/** The tool of partial BTF: pahole, and the list of headers. */
export const headersTool = (pahole: Tool): Tool => ({
  ...pahole,
  fingerprint: `headers ${HEADERS_VERSION} ${LIST_DIGEST.slice(0, DIGEST_PART)} ${pahole.fingerprint}`,
})

export interface HeadersOptions {
  /** pahole */
  tool: Tool
  /** scratch directory of this job */
  directory: string
  limits: PaholeLimits
  download: DownloadOptions
  signal: AbortSignal
  onStage(stage: Stage): void
}

/** Partial BTF, checked but not stored. */
export interface HeadersMade {
  raw: Uint8Array
  info: ReturnType<typeof checkBtf>
  facts: HeaderFacts
  headers: HeadersInfo
  /** of the job's own package */
  receipt: HeaderPackageReceipt
  /** bytes of all packages */
  read: number
}

/**
 * Makes the partial BTF of a job. Errors: `kernel_mismatch` if the headers are of another kernel than the job's; those of
 * `addPackage`, `readFacts`, `findCompiler`, `HeaderCompilation.run`, `encodeBtf`, `checkBtf` and `checkOffsets`.
 */
export async function makeFromHeaders(job: Job, options: HeadersOptions): Promise<HeadersMade> {
  const { directory, signal, onStage } = options
  const paths = headerDirectories(directory)
  for (const path of Object.values(paths)) await mkdir(path)
  onStage('unpack')
  const tree = new HeaderTree(paths.headers)
  const receipts: HeaderPackageReceipt[] = []
  for (const part of packagesOf(job))
    receipts.push(await addPackage(tree, part, join(directory, 'package'), options.download))
  const facts = await readFacts(tree)
  checkKernel(job, facts)
  onStage('compile')
  const sandbox = await Sandbox.open(paths, paths.root, undefined, signal)
  const compiler = await findCompiler(facts, sandbox, paths.work, signal)
  const compiled = await new HeaderCompilation(tree, facts, compiler, sandbox, paths.work).run()
  onStage('pahole')
  const raw = await encodeUnits(compiled.objects, options)
  onStage('check')
  const { byteOrder, pointerSize } = facts.machine
  const info = checkBtf(raw, { byteOrder, pointerSize }, { isPartial: true })
  const btf = parseBtf(raw)
  const offsets = await checkOffsets(tree, btf)
  const packages = (job.parts ?? []).map(({ name }, at) => {
    return { name, sha256: receipts[at + 1]!.sha256! }
  })
  return {
    raw,
    info,
    facts,
    headers: { packages, ...headersInfo(facts, compiler, compiled, btf), offsets },
    receipt: receipts[0]!,
    read: receipts.reduce((sum, { read }) => sum + read, 0),
  }
}

/** The job's package, and the others with its headers. */
function packagesOf({
  package: { url, size },
  checksum,
  format,
  keys,
  parts = [],
}: Job): HeaderPackage[] {
  if (format === 'vmlinux')
    throw new GeneratorError(
      'unsupported_package',
      `${url} has no kernel headers: expected a .deb, .rpm or .tar, or a folder`,
    )
  return [{ url, size, checksum, format, keys }, ...parts.map((part) => ({ ...part, keys }))]
}

function checkKernel({ kernel }: Job, { release, machine }: HeaderFacts): void {
  const compare = (part: string, found: string, wanted: string | undefined) => {
    if (wanted !== undefined && found !== wanted)
      throw new GeneratorError(
        'kernel_mismatch',
        `the headers have ${part} ${found}, not ${wanted}`,
      )
  }
  compare('release', release, kernel.release)
  compare('architecture', machine.arch, kernel.arch)
}

/** Makes BTF of object files: of the others over the first, and all in one. */
async function encodeUnits(
  [first, ...others]: readonly string[],
  { tool, directory, limits, signal }: HeadersOptions,
): Promise<Uint8Array> {
  const base = join(directory, 'unit0.btf')
  await encodeBtf(tool, first!, base, limits, signal)
  const over = { ...tool, options: [...tool.options, `--btf_base=${base}`] }
  try {
    const opened = parseBtf(await readFile(base))
    const units: Btf[] = []
    for (const [at, object] of others.entries()) {
      const target = join(directory, `unit${at + 1}.btf`)
      await encodeBtf(over, object, target, limits, signal)
      units.push(parseBtf(await readFile(target), { base: opened }))
    }
    return typesOnly(units.length > 0 ? parseBtf(mergeBtf(opened, units)) : opened)
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_btf', `the BTF is invalid: ${cause.message}`, { cause })
  }
}

function headersInfo(
  { configuration, symbols, compiler: kernels }: HeaderFacts,
  { name, version, target }: HeaderCompiler,
  { compiled, absent, failed }: CompiledHeaders,
  btf: Btf,
): Omit<HeadersInfo, 'offsets' | 'packages'> {
  const structs = new Set<string>()
  for (const type of btf.types())
    if ((type.kind === 'STRUCT' || type.kind === 'UNION') && type.name !== '')
      structs.add(`${type.kind} ${type.name}`)
  return {
    list: LIST_DIGEST,
    compiled: compiled.length,
    absent,
    failed: failed.length,
    failures: failed.slice(0, MAX_FAILURES).map((failure) => ({ ...failure })),
    structs: structs.size,
    configuration,
    ...(symbols && { symbols }),
    compiler: { name, version, target, kernel: kernels.version },
  }
}

/** Stores partial BTF, and then the record that names it. `draft` has what the job alone tells. Errors: the store's. */
export async function publishFromHeaders(
  store: Parameters<typeof putRecord>[0],
  draft: BuildRecord,
  { raw, info, facts, headers, receipt }: HeadersMade,
  previous: (record: BuildRecord) => Promise<BuildRecord | undefined>,
  signal: AbortSignal | undefined,
): Promise<BuildRecord> {
  const blob = await putBlob(store, raw, signal)
  const { release, unameVersion, machine } = facts
  const record: BuildRecord = {
    ...draft,
    kernel: {
      ...draft.kernel,
      arch: machine.arch,
      release,
      ...(unameVersion !== undefined && { unameVersion }),
    },
    package: { ...draft.package, ...(receipt.sha256 && { sha256: receipt.sha256 }) },
    embedded: facts.isBuiltIn('DEBUG_INFO_BTF'),
    btf: { ...blob, ...info },
    headers,
  }
  const known = await previous(record)
  if (known) record.createdAt = known.createdAt
  await putRecord(store, record)
  await putBlob(store, raw, signal) // gc may have removed an equal blob before the record named it
  return record
}
