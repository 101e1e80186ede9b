import { collectGarbage, openStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import type { CommonOptions } from './filter.ts'

/** `btfmill gc`. Returns the exit status. */
export async function run({ store, json }: CommonOptions): Promise<number> {
  let [blobs, bytes] = [0, 0]
  for await (const { key, size } of collectGarbage(await openStore(store))) {
    blobs++
    bytes += size
    console.log(json ? jsonOf({ key, size }) : key)
  }
  console.log(
    json ? jsonOf({ summary: { blobs, bytes } }) : `${blobs} blobs removed, ${bytes} bytes`,
  )
  return 0
}
