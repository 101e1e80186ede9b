// `npm run demo [-- --keep]` shows the whole path on one real kernel, step by step.
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Presets, SingleBar } from 'cli-progress'
import type { GenerateEvent } from '../../generator/index.ts'
import { withScratch } from '../../generator/scratch.ts'
import { encodeName, type KernelName, openStore } from '../../storage/index.ts'
import { type Server, serve } from './btfmill.ts'
import { bootGuest, buildGuest, fetchBack, generateNewest, RUNS, RUNS_OF_C } from './path.ts'
import { TARGETS } from './target.ts'

const target = TARGETS.i686
const { keep } = parseArgs({ options: { keep: { type: 'boolean', default: false } } }).values

const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
const say = (text: string): void => console.log(text)
const detail = (text: string): void => console.log(`    ${text}`)

/** Durations of the steps, for the summary. */
const took: [step: string, seconds: number][] = []

async function step<T>(name: string, about: string, work: () => Promise<T>): Promise<T> {
  say(`\n${took.length + 1}  ${name}: ${about}`)
  const started = performance.now()
  const result = await work()
  took.push([name, (performance.now() - started) / 1000])
  return result
}

/** Shows the generator's events, and the bytes read as a progress bar; without a terminal, as lines. */
function watchGenerator(): (event: GenerateEvent) => void {
  const format = '    read {bar} {megabytes} of {whole} MB, {duration_formatted}'
  const bar = new SingleBar(
    { format, noTTYOutput: true, notTTYSchedule: 2000 },
    Presets.shades_grey,
  )
  return (event) => {
    switch (event.event) {
      case 'source-failed':
        return detail(`skipped: ${event.suite}: ${event.failure.message}`)
      case 'started':
        detail(`package ${event.package}`)
        return bar.start(event.size ?? 0, 0, {
          megabytes: 0,
          whole: Math.round((event.size ?? 0) / 1e6),
        })
      case 'progress':
        return bar.update(event.read, { megabytes: Math.round(event.read / 1e6) })
      case 'stage':
        if (event.stage === 'pahole') bar.stop()
        if (event.stage !== 'unpack') detail(event.stage)
    }
  }
}

async function demo(dir: string): Promise<void> {
  say(
    'btfmill: from the package of a kernel built without BTF to a CO-RE program running on that kernel',
  )
  const url = `file:${join(dir, 'store')}`
  const store = await openStore(url)

  const { record, read } = await step(
    'generate',
    `BTF for the newest Debian 12 kernel ${target.releases[12]}, like \`btfmill generate --from debug --early-stop\``,
    () =>
      generateNewest(
        store,
        { distro: 'debian', version: '12', arch: target.arch, release: target.releases[12] },
        watchGenerator(),
      ),
  )
  const { kernel, btf } = record
  const size = record.package.size ?? 0
  detail(`${kernel.release}: ${mb(btf.size)} of BTF, ${btf.types} types`)
  detail(
    `read ${mb(read)} of ${mb(size)}: the download stopped when vmlinux was complete, so the package's digest`,
  )
  detail(
    'was not checked. Without --early-stop it is checked against the signed index before publishing.',
  )

  const server = await step('serve', '`btfmill serve` on 127.0.0.1', () => serve(url))
  try {
    detail(server.url)
    const fetched = join(dir, 'fetched.btf')
    await step('fetch', '`btfmill fetch`, by the name of the kernel', () =>
      fetchBack(server, record, fetched),
    )
    detail(`the same ${mb(btf.size)}, SHA-256 ${btf.sha256.slice(0, 16)}…`)

    const { guest, downloaded } = await step(
      'build',
      'the example agent, cross-compiled, in an initramfs for this kernel',
      () => buildGuest(target, record, { btf: fetched, store: url }, dir),
    )
    detail(`${mb(downloaded)} of packages`)

    const boot = (name: string, about: string, types: 'none' | 'some') =>
      step(name, about, () => bootGuest(guest, server.port, { types, onLine: detail }))
    const { refusal } = await boot('boot without', 'no BTF: libbpf must refuse the program', 'none')
    const about = 'with BTF from one source after the other: the agent must load'
    const { runs } = await boot('boot with', about, 'some')

    say(
      `\n${kernel.release} (${kernel.unameVersion}) has no BTF. A CO-RE program does not load there:`,
    )
    say(`    ${refusal}`)
    say('It loads with')
    for (const name of RUNS_OF_C)
      say(
        `    ${RUNS.get(name)?.about.padEnd(26)}and reports ${runs.get(name)?.reported.length} processes as the guest's shell knows them`,
      )
    for (const [name, seconds] of took)
      say(`    ${name.padEnd(18)}${seconds.toFixed(1).padStart(6)} s`)
    say(
      `    ${mb(read)} of ${mb(size)} read, ${mb(btf.size)} of BTF generated, ${mb(downloaded)} downloaded for the guest`,
    )
    if (keep) await keepServing(server, kernel)
  } finally {
    await server.stop()
  }
}

/** Waits for SIGINT or SIGTERM. */
async function keepServing({ url }: Server, kernel: KernelName): Promise<void> {
  const { distro, version, arch, release } = kernel
  const name = [distro, version, arch, release].map(encodeName).join('/')
  say(`\n${url} stays up. Ctrl-C stops it and removes its store. Open in a browser:`)
  say(`    ${url}/kernels/${name}`)
  say(`    ${url}/types/task_struct`)
  await new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve))
}

try {
  await withScratch(undefined, demo)
} catch (error) {
  console.error(`\ndemo: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
}
