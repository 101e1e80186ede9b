import { openStore, signCatalog } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { type CommonOptions, readKey } from './input.ts'

/** `btfmill sign`: prints the key of each object that got a new signature. Returns the exit status. */
export async function run({
  store: url,
  secretKey: path,
  json,
}: CommonOptions & { secretKey: string }): Promise<number> {
  const secretKey = await readKey(path)
  const store = await openStore(url, { create: false })
  const { signed } = await signCatalog(store, secretKey ?? '')
  if (json) console.log(jsonOf({ signed }))
  else
    console.log(
      signed.length > 0
        ? `signed ${signed.join(', ')}`
        : 'nothing to sign: all signatures are current',
    )
  return 0
}
