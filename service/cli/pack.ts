import { Catalog, getBlob, openStore, type StoreError } from '../../storage/index.ts'
import { isDamaged } from '../bundle/member.ts'
import { jsonOf } from '../json.ts'
import { nameOf } from '../kernel/name.ts'
import { type Keep, packKernels, planPacking } from '../pack/packing.ts'
import { type CommonOptions, checkFilter, type FilterOptions, filterOf, readKey } from './input.ts'
import { columns, counted, printable } from './output.ts'
import { publishPacks } from './publish-packs.ts'
import { stopOnSignals } from './signals.ts'

interface PackCommandOptions extends CommonOptions, FilterOptions {
  keep: Keep
  dryRun?: boolean
  secretKey?: string
}

/** `btfmill pack`. Returns the exit status: 1 if a kernel or a pack is damaged. */
export async function run({ dryRun, ...options }: PackCommandOptions): Promise<number> {
  const secretKey = await readKey(options.secretKey)
  const store = await openStore(options.store, { create: false })
  let wrong = 0
  const catalog = await Catalog.open(store, (error: StoreError) => {
    wrong++
    console.error(printable(`btfmill: ${error.code}: ${error.message}`))
  })
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const { signal } = stopOnSignals((line) => console.error(`btfmill: ${line}`))
  const packing = {
    ...{ store, catalog, filter, keep: options.keep, isDamaged, signal },
    read: ({ btf }: { btf: { sha256: string } }) => getBlob(store, btf.sha256),
  }
  if (dryRun) return await printPlan(await planPacking(packing), options.json)
  const count = { packs: 0, kernels: 0, added: 0, blobs: 0, bytes: 0 }
  for await (const event of packKernels(packing)) {
    const where = `${event.distro} ${event.arch}`
    if (options.json) console.log(jsonOf(event))
    switch (event.state) {
      case 'packed': {
        count.packs++
        count.kernels += event.members
        count.added += event.added
        const { digest, members, added, size } = event
        const what = `${counted(members, 'kernel')}, ${added} new, ${size} bytes`
        if (!options.json) console.log(`${where}: packs/${digest}.btfpack: ${what}`)
        break
      }
      case 'removed':
        count.blobs++
        count.bytes += event.size
        break
      case 'left out':
      case 'failed': {
        wrong++
        const what = event.state === 'failed' ? where : nameOf(event.kernel)
        console.error(printable(`btfmill: ${what}: ${event.message}`))
        break
      }
      default:
        event satisfies never
    }
  }
  if (count.packs > 0) await publishPacks(store, 'pack', secretKey)
  console.log(
    options.json
      ? jsonOf({ summary: count })
      : `${counted(count.packs, 'pack')} written with ${counted(count.added, 'new kernel')}; ${counted(count.blobs, 'blob')} removed, ${count.bytes} bytes`,
  )
  return wrong === 0 ? 0 : 1
}

async function printPlan(
  plans: Awaited<ReturnType<typeof planPacking>>,
  json = false,
): Promise<number> {
  const total = { add: 0, blobs: 0, bytes: 0, packs: 0 }
  for (const plan of plans) {
    total.add += plan.add
    total.blobs += plan.blobs
    total.bytes += plan.bytes
    total.packs += plan.packs
    if (json) console.log(jsonOf(plan))
  }
  if (json) {
    console.log(jsonOf({ summary: total }))
    return 0
  }
  const row = (name: string, { add, blobs, bytes, packs }: typeof total): string[] => [
    ...[name, String(add), `about ${packs}`, String(blobs), String(bytes)],
  ]
  const rows = plans.map((plan) => row(`${plan.distro} ${plan.arch}`, plan))
  const head = ['', 'kernels to pack', 'bytes of packs', 'blobs to remove', 'their bytes']
  for (const line of columns([head, ...rows, row('all', total)])) console.log(line)
  return 0
}
