/* /status: kernels that were asked for and are not there, what is being made, what failed, and when sources were read. */
import { publicFailure, type SourceResult } from '../../storage/index.ts'
import { type Generation, isEnded } from '../demand/generation.ts'
import type { Miss } from '../demand/misses.ts'
import { nameOf } from '../kernel/name.ts'
import { toPublicFailure } from '../kernel/public-record.ts'
import type { KernelTable, TableNumbers } from './kernel-table.ts'
import type { Page } from './render.ts'
import { kernelUrl, urlOf } from './url.ts'

/** Rows of each table. */
const MAX_MISSES = 60
const MAX_FAILURES = 40
const MAX_SOURCES = 200

interface KernelLabel {
  readonly name: string
  readonly release: string
  readonly distro: string
}

export interface StatusView {
  readonly states: TableNumbers['states']
  readonly misses: readonly (KernelLabel & {
    readonly count: number
    readonly first: string
    readonly last: string
  })[]
  readonly missCount: number
  /** whether this service makes BTF when it is asked to, and whether this client needs a token for that */
  readonly generation: 'off' | 'token' | 'open'
  readonly jobs: readonly (KernelLabel & {
    readonly id: string
    readonly href: string
    readonly state: string
    readonly packages: readonly {
      readonly name: string
      readonly stage: string
      readonly read: number
      readonly size?: number
    }[]
  })[]
  /** the generation that a form has just started */
  readonly started?: {
    readonly id: string
    readonly state: string
    readonly release: string
    readonly message?: string
  }
  readonly failures: readonly (KernelLabel & {
    readonly href: string
    readonly code: string
    readonly message: string
    readonly at: string
    readonly attempts: number
    readonly retryAt: string | null
  })[]
  readonly failureCount: number
  readonly sources: readonly {
    readonly source: string
    readonly suite: string
    /** when it was read last; of a failed one, when that failed */
    readonly at: string
    readonly failure?: { readonly code: string; readonly message: string }
  }[]
  readonly failuresHref: string
}

export interface StatusParts {
  readonly table: KernelTable
  readonly misses: readonly Miss[]
  readonly generation: StatusView['generation']
  readonly jobs: readonly Generation[]
  readonly started: Generation | undefined
  readonly sources: readonly SourceResult[]
}

export function statusPage({
  table,
  misses,
  generation,
  jobs,
  started,
  sources,
}: StatusParts): Page {
  const failed = table.rows.flatMap((row) => {
    const failure = row.builds.find((build) => build.failure)?.failure
    return failure ? [{ row, failure: toPublicFailure(failure) }] : []
  })
  const latest = failed.toSorted((a, b) => (a.failure.at < b.failure.at ? 1 : -1))
  const view: StatusView = {
    states: table.numbers().states,
    misses: misses.slice(0, MAX_MISSES).map(({ kernel, count, first, last }) => ({
      ...labelOf(kernel),
      ...{ count, first, last },
    })),
    missCount: misses.length,
    generation,
    jobs: jobs
      .filter((job) => !isEnded(job))
      .map(({ id, kernel, state, packages }) => ({
        ...labelOf(kernel),
        id,
        href: `/v1/jobs/${encodeURIComponent(id)}`,
        state,
        packages: packages.map(({ name, stage, state: own, read, size }) => ({
          name,
          stage: stage ?? own,
          read,
          ...(size !== undefined && { size }),
        })),
      })),
    ...(started && {
      started: {
        id: started.id,
        state: started.state,
        release: started.kernel.release,
        ...(started.failure && { message: started.failure.message }),
      },
    }),
    failures: latest.slice(0, MAX_FAILURES).map(({ row, failure }) => ({
      ...labelOf(row.kernel),
      href: kernelUrl(row.name),
      ...failure,
      message: failure.message.slice(0, 400),
    })),
    failureCount: failed.length,
    sources: sources.slice(0, MAX_SOURCES).map(sourceView),
    failuresHref: urlOf('/kernels', { state: 'failed' }),
  }
  return {
    template: 'status',
    title: 'Status: what is missing, being made, and failed',
    description:
      'Kernels that were asked for and have no BTF here, kernels whose BTF is being made, failures, and when sources were read last.',
    path: '/status',
    part: 'status',
    view,
  }
}

const labelOf = (kernel: Miss['kernel']): KernelLabel => ({
  name: nameOf(kernel),
  release: kernel.release,
  distro: `${kernel.distro} ${kernel.version} ${kernel.arch}`,
})

function sourceView(result: SourceResult): StatusView['sources'][number] {
  const { source, suite } = result
  if (!('failure' in result)) return { source, suite, at: result.readAt }
  const { code, message, at } = publicFailure(result.failure)
  return { source, suite, at, failure: { code, message: message.slice(0, 400) } }
}
