/* Where the index of a store is, if no file is given: beside a store on disk, else in the user's cache directory. */
import { access, constants, mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { sha256Of } from '../../storage/index.ts'

const NAME = 'declarations.sqlite'
/** Characters of the digest that tells stores apart. */
const DIGITS = 16

/** The value of a setting that turns the index off. */
export const NO_INDEX = 'off'

/** The index in a directory for state. */
export const indexIn = (state: string): string => join(state, NAME)

/** The index of the store with a URL that is there; undefined if none is. */
export async function findIndex(url: string): Promise<string | undefined> {
  for (const path of pathsOf(url))
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path
  return undefined
}

/** The index of the store with a URL. The directory of its file is there and writable; undefined if none is. */
export async function indexOf(url: string): Promise<string | undefined> {
  for (const path of pathsOf(url)) if (await isWritable(dirname(path))) return path
  return undefined
}

/** Where the index of a store may be, best first. */
function pathsOf(url: string): string[] {
  const beside = url.startsWith('file:') ? [indexIn(`${url.slice('file:'.length)}-state`)] : []
  const { XDG_CACHE_HOME: cache = '' } = process.env
  const home = join(isAbsolute(cache) ? cache : join(homedir(), '.cache'), 'btfmill/indexes')
  const name = sha256Of(Buffer.from(url)).slice(0, DIGITS)
  return [...beside, join(home, `${name}.sqlite`)]
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
