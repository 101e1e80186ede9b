import { collectGarbage, openStore, partialOf } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { type CommonOptions, readKey } from './input.ts'
import { counted } from './output.ts'
import { publishPacks } from './publish-packs.ts'

interface GcCommandOptions extends CommonOptions {
  secretKey?: string
}

/** `btfmill gc`. Returns the exit status. */
export async function run({ store, json, secretKey: keyFile }: GcCommandOptions): Promise<number> {
  const secretKey = await readKey(keyFile)
  let [blobs, packs, bytes] = [0, 0, 0]
  const opened = await openStore(store, { create: false })
  for (const [part, prefix] of [
    [opened, ''],
    [partialOf(opened), 'partial/'],
  ] as const) {
    for await (const { key: inside, size } of collectGarbage(part)) {
      const key = prefix + inside
      if (key.startsWith('packs/')) packs++
      else blobs++
      bytes += size
      console.log(json ? jsonOf({ key, size }) : key)
    }
  }
  if (packs > 0) await publishPacks(opened, 'gc', secretKey)
  console.log(
    json
      ? jsonOf({ summary: { blobs, packs, bytes } })
      : `${counted(blobs, 'blob')}${packs > 0 ? ` and ${counted(packs, 'pack')}` : ''} removed, ${bytes} bytes`,
  )
  return 0
}
