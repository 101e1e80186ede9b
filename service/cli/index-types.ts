import { openStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { formatSize } from '../size.ts'
import { counted, linesOf, print } from './output.ts'
import { refreshIndex } from './type-index.ts'

interface IndexCommandOptions {
  store: string
  index?: string
  rebuild?: boolean
  json?: boolean
}

/** `btfmill index`. Returns the exit status: 1 if the BTF of a kernel could not be taken up. */
export async function run({
  store: url,
  index,
  rebuild = false,
  json,
}: IndexCommandOptions): Promise<number> {
  const store = await openStore(url, { create: false })
  const { path, added, failed, kernels, stats } = await refreshIndex(store, index, { rebuild })
  const { declarations, forms, btfs, bytes } = stats()
  const count = declarations.reduce((sum, { count }) => sum + count, 0)
  const text = [
    `${path}: ${counted(kernels, 'kernel')}, ${btfs} BTFs (${added} new, ${failed} failed),`,
    `${counted(count, 'declaration')} in ${counted(forms, 'form')}, ${formatSize(bytes)}`,
  ].join(' ')
  const value = { path, kernels, btfs, added, failed, declarations: count, forms, bytes }
  await print(linesOf([json ? jsonOf(value) : text]))
  return failed === 0 ? 0 : 1
}
