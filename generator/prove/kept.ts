/* Directories with downloads for guests, kept between runs. Two runs may fill one at the same time: the first wins. */
import { existsSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { withScratch } from '../scratch.ts'

/** Returns the path of a directory below `cache`, which `fill` has filled completely. Errors: those of `fill`. */
export async function kept(
  cache: string,
  name: string,
  fill: (directory: string) => Promise<void>,
): Promise<string> {
  const path = join(cache, name)
  if (existsSync(path)) return path
  await withScratch(cache, async (directory) => {
    await fill(directory)
    await rename(directory, path).catch((error: Error) => {
      if (!existsSync(path)) throw error
    })
  })
  return path
}
