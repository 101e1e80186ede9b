import { basename } from 'node:path'
import type { Check, CheckedRelocation, Loads, SourceLine } from '../../bpf/index.ts'
import { jsonOf, lineOf } from '../json.ts'
import { ALL, sweep, withPool } from './for-each-kernel.ts'
import {
  type CommonOptions,
  chosenKernels,
  type FilterOptions,
  filterOf,
  type KernelError,
  type KernelOptions,
  readObject,
} from './input.ts'
import { printable } from './output.ts'

interface CheckOptions extends CommonOptions, FilterOptions, KernelOptions {}

/** `btfmill check`. Returns the exit status: 1 if an object does not load on a kernel, or was not checked on one. */
export function run(files: string[], options: CheckOptions): Promise<number> {
  return withPool(options.btf === undefined ? ALL : 1, async (pool) => {
    const objects = await Promise.all(files.map(readObject))
    let failed = 0
    const fail = (message: string) => {
      failed++
      console.error(`btfmill: ${printable(message)}`)
    }
    const kernels = await chosenKernels(options, filterOf(options), ({ message }) => fail(message))
    for await (const { kernel: chosen, ...swept } of sweep(pool, 'check', kernels, objects)) {
      const { name: kernel, build } = chosen
      for (const [n, file] of files.entries()) {
        const json = 'error' in swept ? jsonOf({ error: swept.error }) : swept.value[n]!
        const answer: Answer = JSON.parse(json)
        if (options.json) process.stdout.write(lineOf({ object: file, kernel, build }, json))
        const title = `${basename(file)} on ${kernel}${build === undefined ? '' : ` (${build})`}`
        if ('error' in answer) fail(`${title}: ${answer.error.code}: ${answer.error.message}`)
        else if (answer.loads === 'no') failed++
        if (!options.json && 'loads' in answer)
          for (const line of textOf(title, answer)) console.log(line)
      }
    }
    return failed === 0 ? 0 : 1
  })
}

/** The result of the task `check` for one object, as JSON has it: 64-bit numbers are texts. */
type Answer = Check | { readonly error: KernelError }

const VERDICTS: Readonly<Record<Loads, string>> = {
  yes: 'loads',
  depends: 'may load',
  no: 'does not load',
}

/** A line for the object, then two for each relocation that keeps it, or may keep it, from loading. */
function* textOf(title: string, { loads, programs }: Check): Generator<string> {
  const all = programs.flatMap(({ relocations }) => relocations)
  const byFate = Map.groupBy(all, fateOf)
  const counts = FATES.flatMap((fate) => {
    const count = byFate.get(fate)?.length
    return count === undefined ? [] : [`${count} ${fate}`]
  })
  yield printable(`${title}: ${VERDICTS[loads]}: ${counts.join(', ') || 'no relocations'}`)
  for (const { name, relocations } of programs) {
    for (const relocation of relocations) {
      if (!['poisoned', 'fatal'].includes(fateOf(relocation))) continue
      yield printable(`  ${name}: ${whyNot(relocation)}`)
      yield printable(
        `    ${placeOf(relocation.source) ?? `instruction ${relocation.instruction}`}`,
      )
    }
  }
}

const FATES = ['relocated', 'absent', 'guarded', 'poisoned', 'fatal'] as const
type Fate = (typeof FATES)[number]

function fateOf({ outcome, guard }: CheckedRelocation): Fate {
  if (outcome.is === 'ok') return 'relocated'
  return guard?.is === 'guarded' ? 'guarded' : outcome.is
}

function whyNot({ access, kind, outcome, guard }: CheckedRelocation): string {
  const what = `${access} (${kind})`
  if (outcome.is === 'fatal') return `${what}: ${outcome.message}`
  const missing = outcome.is === 'poisoned' && outcome.why === 'missing'
  const why = missing ? 'is not there' : 'has a size that this instruction does not access'
  if (guard?.is !== 'reached only if') return `${what} ${why}, and nothing guards it`
  return `${what} ${why}; reached only if ${placeOf(guard.onlyIf) ?? 'a branch is taken'}`
}

function placeOf(source: SourceLine | undefined): string | undefined {
  return source && `${source.file}:${source.line}: ${source.text}`
}
