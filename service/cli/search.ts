import type { Found, FoundKind, SearchAnswer } from '../declarations/answers.ts'
import { jsonOf } from '../json.ts'
import { columns, counted, linesOf, print, printable } from './output.ts'
import { askIndex, type TypeIndexOptions } from './type-index.ts'

interface SearchOptions extends TypeIndexOptions {
  kind?: FoundKind[]
  limit: number
}

/** `btfmill search`. Returns the exit status: 1 if nothing is found. */
export async function run(text: string, options: SearchOptions): Promise<number> {
  const { kind: kinds, limit, json } = options
  const answer = await askIndex<SearchAnswer>(
    options,
    (index) => index.search(text, { kinds, limit }),
    {
      path: 'v1/search',
      query: { q: text, kind: kinds, limit: String(limit) },
    },
  )
  const { found, next } = answer!
  if (found.length === 0) {
    console.error(printable(`btfmill: nothing is called ${text}`))
    return 1
  }
  await print(
    linesOf(
      json ? found.map((one) => jsonOf(one)) : columns(found.map(rowOf), process.stdout.columns),
    ),
  )
  if (next !== undefined && !json)
    console.error('btfmill: there is more: expected a higher --limit')
  return 0
}

function rowOf({ kind, name, of, kernel, forms }: Found): string[] {
  const details = kernel
    ? [kernel.distro, kernel.version, kernel.arch, kernel.packageVersion].join(' ')
    : of
      ? `of ${of.kind} ${of.name}`
      : forms !== undefined
        ? counted(forms, 'form')
        : ''
  return [kind, of ? `${of.name}.${name}` : name, details].map(printable)
}
