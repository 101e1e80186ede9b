import { importBuilds, importTree, type OfferedBuild } from '../../generator/index.ts'
import { openStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { isPackFile, Pack, packFile } from '../pack/pack.ts'
import { type CommonOptions, readKey } from './input.ts'
import { printable } from './output.ts'

interface ImportCommandOptions extends CommonOptions {
  secretKey?: string
}

/** `btfmill import`. Returns the exit status: 1 if anything was refused. */
export async function run(
  tree: string,
  { store, json, secretKey }: ImportCommandOptions,
): Promise<number> {
  const key = await readKey(secretKey)
  const count: Record<string, number> = {}
  const options = key ? { secretKey: key } : {}
  // a pack that cannot be read leaves no new store
  const pack = (await isPackFile(tree)) ? await Pack.open(packFile(tree)) : undefined
  const opened = await openStore(store)
  const imports = pack
    ? importBuilds(opened, tree, buildsOf(pack), options)
    : importTree(opened, tree, options)
  for await (const imported of imports) {
    count[imported.state] = (count[imported.state] ?? 0) + 1
    if (json) console.log(jsonOf(imported))
    else if (imported.state === 'refused')
      console.error(printable(`btfmill: ${imported.path}: ${imported.code}: ${imported.message}`))
  }
  if (json) console.log(jsonOf({ summary: count }))
  else
    console.log(
      Object.entries(count)
        .map(([state, n]) => `${n} ${state}`)
        .join('; ') || `no BTF in ${tree}`,
    )
  return count.refused || Object.keys(count).length === 0 ? 1 : 0
}

/** The builds in a pack, in the order of its members. */
async function* buildsOf(pack: Pack): AsyncGenerator<OfferedBuild> {
  for await (const { member, result } of pack.readAll())
    for (const record of pack.index.catalog.findBy('sha256', member.sha256))
      yield { record, raw: result }
}
