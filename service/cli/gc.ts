import { collectGarbage, openStore, partialOf } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import type { CommonOptions } from './input.ts'
import { counted } from './output.ts'

/** `btfmill gc`. Returns the exit status. */
export async function run({ store, json }: CommonOptions): Promise<number> {
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
  console.log(
    json
      ? jsonOf({ summary: { blobs, packs, bytes } })
      : `${counted(blobs, 'blob')}${packs > 0 ? ` and ${counted(packs, 'pack')}` : ''} removed, ${bytes} bytes`,
  )
  return 0
}
