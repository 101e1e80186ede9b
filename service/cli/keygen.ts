import { writeFile } from 'node:fs/promises'
import { generateKeys } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'

interface KeygenOptions {
  output: string
  json?: boolean
}

/** `btfmill keygen`: writes a secret and a public key, and never over existing files. Returns the exit status. */
export async function run({ output, json }: KeygenOptions): Promise<number> {
  const { publicKey, secretKey } = generateKeys()
  const files = { secretKey: `${output}.key`, publicKey: `${output}.pub` }
  await writeFile(files.secretKey, secretKey, { mode: 0o600, flag: 'wx' })
  await writeFile(files.publicKey, publicKey, { flag: 'wx' })
  console.log(json ? jsonOf(files) : `${files.secretKey} signs, ${files.publicKey} verifies`)
  return 0
}
