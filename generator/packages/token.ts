/*
 * Tokens of repositories: SUSE's servers open each repository to a URL whose query is its token. A registered machine has
 * these URLs in /etc/zypp/repos.d, and the customer centre lists them. The token is added when a request is sent, and to
 * nothing that is kept, shown or queued.
 */
import { showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { RepositoryAccess } from '../sources/source.ts'
import { readSecrets } from './secret.ts'

/** A repository's URL with a token, in a .repo file, in JSON, or on a line. */
const TOKEN_URL = /https:\/\/[^\s"'<>?#]+\?[^\s"'<>#]+/g

/**
 * Adds the token of the repository that a URL is below. A URL without one is returned as it is, unless `tokens` is given.
 * Those of `tokens` are sent over TLS only. Errors: `no_access` if `tokens` has none for it.
 */
export async function withToken(
  url: string,
  { urls = [], tokens }: RepositoryAccess,
): Promise<string> {
  const given = tokenFor(url, urls)
  if (given !== undefined || tokens === undefined || !url.startsWith('https:')) return given ?? url
  const files = await readSecrets(tokens, '.repo')
  const known = files.flatMap((file) => file.toString('utf8').match(TOKEN_URL) ?? [])
  const found = tokenFor(url, known)
  if (found !== undefined) return found
  throw new GeneratorError(
    'no_access',
    `no token for ${showable(url)}: expected the URL of its repository with a token in ${showable(tokens)}`,
    { log: tokens },
  )
}

/** The URL with the query of the closest of these repositories that it is below; undefined if it is below none. */
function tokenFor(url: string, repositories: readonly string[]): string | undefined {
  const wanted = URL.parse(url)
  if (!wanted) return undefined
  let best: { path: string; token: string } | undefined
  for (const repository of repositories) {
    const known = URL.parse(repository)
    if (known?.origin !== wanted.origin || known.search === '') continue
    const path = known.pathname.replace(/\/*$/, '/')
    if (wanted.pathname.startsWith(path) && path.length > (best?.path.length ?? 0))
      best = { path, token: known.search }
  }
  if (!best) return undefined
  wanted.search = best.token
  return wanted.href
}
