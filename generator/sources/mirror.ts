/*
 * Which mirror to ask: the one the user names, else the one this machine's own apt uses, else the archive's own.
 * A repository is named by the last part of its path, `debian` or `debian-security`, as apt's URIs end in it.
 */
import { runChild } from '../subprocess.ts'

export const DEFAULT_MIRROR = 'http://ftp.debian.org/debian'

/** Gives the base URL of a repository, without a slash at its end. */
export type Mirror = (repository: string) => string

/**
 * The mirror to use. With `given` (the URL of the main archive, `http://host/debian`) other repositories are its
 * siblings, as they are on Debian's mirrors; without it each is where this machine's apt has it.
 */
export async function findMirror(given?: string): Promise<Mirror> {
  const known = given ? new Map<string, string>() : await aptRepositories()
  const main = trim(given ?? known.get('debian') ?? DEFAULT_MIRROR)
  return (repository) =>
    known.get(repository) ??
    (repository === 'debian' ? main : new URL(`${main}/../${repository}`).href)
}

/** The repositories of this machine's apt by the last part of their path; empty where there is no apt. */
async function aptRepositories(): Promise<Map<string, string>> {
  const format = ['--format', '$(REPO_URI)']
  const { stdout, status } = await runChild(
    'apt-get',
    ['indextargets', ...format, 'Created-By: Packages'],
    {
      seconds: 30,
    },
  )
  const found = new Map<string, string>()
  if (status !== 0) return found
  for (const line of stdout.toString('utf8').split('\n')) {
    const [, url, name] = /^(https?:\/\/\S*?\/([a-z-]+))\/?$/.exec(line.trim()) ?? []
    if (url && name && !found.has(name)) found.set(name, url)
  }
  return found
}

const trim = (url: string): string => url.replace(/\/+$/, '')
