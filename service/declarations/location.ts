/* Where the index of a store is, if no file is given: beside a store on disk, else in the user's cache directory. */
import { access, constants, mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { sha256Of } from '../../storage/index.ts'

const NAME = 'declarations.sqlite'
/** Characters of the digest that tells stores apart. */
const DIGITS = 16

/** The value of a setting that turns the index off. */
export const NO_INDEX = 'off'

/** The index in a directory for state. */
export const indexIn = (state: string): string => join(state, NAME)

/** The index of the store with a URL. The directory of its file is there and writable; undefined if none is. */
export async function indexOf(url: string): Promise<string | undefined> {
  if (url.startsWith('file:')) {
    const beside = `${url.slice('file:'.length)}-state`
    if (await isWritable(beside)) return indexIn(beside)
  }
  const { XDG_CACHE_HOME: cache = '' } = process.env
  const home = join(isAbsolute(cache) ? cache : join(homedir(), '.cache'), 'btfmill/indexes')
  const name = sha256Of(Buffer.from(url)).slice(0, DIGITS)
  return (await isWritable(home)) ? join(home, `${name}.sqlite`) : undefined
}

/** Makes a directory; tells whether it is there and writable. */
async function isWritable(directory: string): Promise<boolean> {
  try {
    await mkdir(directory, { recursive: true })
    await access(directory, constants.W_OK)
    return true
  } catch {
    return false
  }
}
