import { readFile } from 'node:fs/promises'

/** The text of the secret key in a file, where one is named. Errors: the system's. */
export async function readSecretKey(path: string | undefined): Promise<string | undefined> {
  return path === undefined ? undefined : await readFile(path, 'utf8')
}
