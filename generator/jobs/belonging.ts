/*
 * The URLs that belong to a source: what lies below its repositories. Credentials go only there, and a job from a queue
 * is believed only about them: whoever can write to the queue may name any source with any URL.
 */
import { basename } from 'node:path'
import { accessOf, basesOf, indexTargetsOf } from '../indexes/discover.ts'
import type { Mirror } from '../sources/mirror.ts'
import { keyringsOf, PACKAGE_ROLES, type RepositoryAccess, type Source } from '../sources/source.ts'
import type { Job } from './job.ts'

/** Tells whether a URL is below a repository of a source. Repositories that only a mirror has need `mirror`. */
export function belongsTo(source: Source, url: string, mirror?: Mirror, version?: string): boolean {
  const wanted = URL.parse(url)
  if (!wanted) return false
  const isBelow = (base: string) => wanted.href.startsWith(`${base.replace(/\/+$/, '')}/`)
  const filter = version === undefined ? {} : { version }
  return indexTargetsOf(source, filter, PACKAGE_ROLES).some((target) => {
    const isList = 'list' in target.repository && target.repository.list
    return basesOf(target, mirror ?? noMirror).some((text) => {
      const base = URL.parse(text)
      if (!base || base.protocol !== wanted.protocol) return false
      if ('hosts' in source && source.hosts.includes(wanted.host)) return true
      return isList ? wanted.origin === base.origin : isBelow(base.href)
    })
  })
}

const noMirror: Mirror = () => ''

/** The files that open a URL: those of the source that it belongs to, and none for any other URL. */
export function accessTo(source: Source | undefined, url: string): RepositoryAccess | undefined {
  const access = source && accessOf(source)
  return access && belongsTo(source, url) ? access : undefined
}

/**
 * A job from a queue with as much trust as this machine can check again: its package is below a repository of its
 * source for that distribution version, and its keys are the source's. Without that, its digest is vouched for by
 * nobody.
 */
export function believed(job: Job, sources: readonly Source[], mirror: Mirror): Job {
  const { fallbacks } = job
  return {
    ...believedAlone(job, sources, mirror),
    ...(fallbacks && { fallbacks: fallbacks.map((one) => believedAlone(one, sources, mirror)) }),
  }
}

function believedAlone<J extends Omit<Job, 'fallbacks'>>(
  { keys = [], ...job }: J,
  sources: readonly Source[],
  mirror: Mirror,
): Omit<J, 'keys'> & Pick<Job, 'keys' | 'trust'> {
  const { distro, version } = job.kernel
  const source = sources.find(({ id }) => id === job.source)
  const isOfSource = source?.distro === distro && Object.hasOwn(source.versions, version)
  const keyrings = isOfSource ? keyringsOf(source, version) : []
  // the same keys, where this machine has them
  const names = new Set(keys.map((path) => basename(path)))
  const known = keyrings.filter((path) => names.has(basename(path)))
  const { url } = job.package
  const urls = [url, ...(job.parts ?? []).map((part) => part.url)]
  const belongs = isOfSource && urls.every((one) => belongsTo(source, one, mirror, version))
  return {
    ...job,
    trust: belongs ? atMost(job.trust, keyrings.length > 0, url) : 'none',
    ...(known.length > 0 && { keys: known }),
  }
}

/** Only keys can sign an index, and only TLS protects an unsigned one. */
function atMost(trust: Job['trust'], hasKeys: boolean, url: string): Job['trust'] {
  if (trust === 'index' && hasKeys) return 'index'
  return trust !== 'none' && url.startsWith('https:') ? 'digest' : 'none'
}
