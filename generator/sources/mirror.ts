/*
 * The mirror of an apt archive: the one that the user names, or the one that apt on this machine uses, or the archive's
 * own server. A repository is named by the last part of its path (`debian`, `debian-security`), as in apt's URIs.
 */
import { runChild } from '../subprocess.ts'

export const DEFAULT_MIRROR = 'http://ftp.debian.org/debian'

/** Maps a repository's name to its base URL, without a trailing slash. */
export type Mirror = (repository: string) => string

/**
 * Finds the mirror to use. With `given` (the URL of the main archive, `http://host/debian`) other repositories are its
 * siblings, as on Debian's mirrors. Without it each repository is where apt on this machine has it.
 */
export async function findMirror(given?: string): Promise<Mirror> {
  const known = given ? new Map<string, string>() : await aptRepositories()
  const main = trim(given ?? known.get('debian') ?? DEFAULT_MIRROR)
  return (repository) =>
    known.get(repository) ??
    (repository === 'debian' ? main : new URL(`${main}/../${repository}`).href)
}

/** The repositories of apt on this machine by the last part of their path; empty without apt. */
async function aptRepositories(): Promise<Map<string, string>> {
  const args = ['indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages']
  const { stdout, status } = await runChild('apt-get', args, { seconds: 30 })
  const found = new Map<string, string>()
  if (status !== 0) return found
  for (const line of stdout.toString('utf8').split('\n')) {
    const [, url, name] = /^(https?:\/\/\S*?\/([a-z-]+))\/?$/.exec(line.trim()) ?? []
    if (url && name && !found.has(name)) found.set(name, url)
  }
  return found
}

const trim = (url: string): string => url.replace(/\/+$/, '')
