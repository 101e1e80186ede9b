import { collectGarbage, openStore } from '../../storage/index.ts'
import type { CommonOptions } from './filter.ts'
import { jsonLine } from './output.ts'

/** `btfmill gc`. Returns the exit status. */
export async function run({ store, json }: CommonOptions): Promise<number> {
  let [blobs, bytes] = [0, 0]
  for await (const { key, size } of collectGarbage(await openStore(store))) {
    blobs++
    bytes += size
    console.log(json ? jsonLine({ key, size }) : key)
  }
  console.log(
    json ? jsonLine({ summary: { blobs, bytes } }) : `${blobs} blobs removed, ${bytes} bytes`,
  )
  return 0
}
