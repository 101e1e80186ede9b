/* Files that open a repository: certificates, keys, credentials and tokens. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { scrubbed, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'

/** Reads a file that opens a repository. Errors: `no_access`. */
export async function readSecret(path: string): Promise<Buffer> {
  return await readFile(path).catch((cause) => refuse(path, cause))
}

/** Reads a file, or all files of a folder whose names end with `suffix`. Errors: `no_access`. */
export async function readSecrets(path: string, suffix: string): Promise<Buffer[]> {
  const names = await readdir(path).catch((cause) => {
    if ((cause as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined
    return refuse(path, cause)
  })
  const files = names?.filter((name) => name.endsWith(suffix)).map((name) => join(path, name))
  return await Promise.all((files ?? [path]).map(readSecret))
}

function refuse(path: string, cause: unknown): never {
  const { message } = cause as Error
  throw new GeneratorError(
    'no_access',
    `the repository needs ${showable(path)} to open it: ${scrubbed(message)}`,
    { cause, log: message },
  )
}
