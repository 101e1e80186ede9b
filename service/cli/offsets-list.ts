/*
 * A list of offsets: a text with an entry a line, `[NAME =] PATH [| PATH]…`, and comments from # to the end of a line. The
 * first path that a kernel has counts: members move and are renamed. Without a name an entry is called by its first path.
 */
import { readFile } from 'node:fs/promises'
import { isConstantPath } from '../../bpf/index.ts'
import { ServiceError } from '../error.ts'
import { checkReadable } from './input.ts'
import { identifierOf, type OffsetEntry } from './offsets-formats.ts'

const MAX_ENTRIES = 10_000
const MAX_PATHS = 16
const NAME = /^[A-Za-z_][\w.]{0,255}$/

/** Reads a list. Errors: `invalid_list`, `invalid_file`; the system's. */
export async function readOffsetList(path: string): Promise<OffsetEntry[]> {
  await checkReadable(path)
  return parseOffsetList(await readFile(path, 'utf8'), path)
}

/** Parses a list; `path` names it in messages. Errors: `invalid_list`. */
export function parseOffsetList(text: string, path: string): OffsetEntry[] {
  const entries: OffsetEntry[] = []
  const names = new Map<string, string>()
  for (const [at, line] of text.split('\n').entries()) {
    const content = line.replace(/#.*/, '').trim()
    if (content === '') continue
    const refuse = (why: string) =>
      new ServiceError('invalid_list', `${path}, line ${at + 1}: ${why}`)
    const entry = parseEntry(content, refuse)
    const identifier = identifierOf(entry.name)
    const other = names.get(identifier)
    if (other === entry.name) throw refuse(`duplicate name "${entry.name}"`)
    if (other !== undefined)
      throw refuse(`"${other}" and "${entry.name}" are the same identifier in C: give one a NAME =`)
    names.set(identifier, entry.name)
    entries.push(entry)
    if (entries.length > MAX_ENTRIES) throw refuse(`more than ${MAX_ENTRIES} entries`)
  }
  if (entries.length === 0)
    throw new ServiceError(
      'invalid_list',
      `${path}: no entries: expected lines such as task_struct.pid`,
    )
  return entries
}

function parseEntry(content: string, refuse: (why: string) => ServiceError): OffsetEntry {
  const [, given, right] = /^(?:([^=]*)=)?([^=]*)$/.exec(content) ?? []
  const paths = (right ?? content).split('|').map((path) => path.trim())
  for (const path of paths)
    if (right === undefined || !isConstantPath(path))
      throw refuse(
        `invalid path ${JSON.stringify(path)}: expected TYPE, TYPE.MEMBER or ENUM.ENUMERATOR`,
      )
  if (paths.length > MAX_PATHS) throw refuse(`more than ${MAX_PATHS} paths`)
  const name = given?.trim() ?? paths[0]!.replace(/^\w+ +/, '')
  if (!NAME.test(name))
    throw refuse(`invalid name ${JSON.stringify(name)}: expected letters, digits, _ and dots`)
  return { name, paths }
}
