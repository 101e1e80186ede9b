/* What a run says while it works: one type, for progress bars, for lines, and for NDJSON. */
import type { BuildRecord, Failure, FailureCode, KernelName } from '../storage/index.ts'

/** What a job is busy with. */
export const STAGES = ['unpack', 'pahole', 'modules', 'check', 'publish'] as const
export type Stage = (typeof STAGES)[number]

/** What one job says. */
export type JobEvent =
  /** `instead` of an image, whose kernel has no BTF of its own */
  | {
      event: 'started'
      kernel: KernelName
      package: string
      size?: number | undefined
      instead?: Instead
    }
  | { event: 'stage'; kernel: KernelName; stage: Stage }
  /** bytes of the package that were read */
  | { event: 'progress'; kernel: KernelName; read: number; size?: number | undefined }
  | { event: 'published'; kernel: KernelName; record: BuildRecord; read: number; seconds: number }
  | { event: 'failed'; kernel: KernelName; failure: Failure; seconds: number }

/** A package that was read in vain, and why. */
export interface Instead {
  package: string
  code: FailureCode
  message: string
}

export type OnJobEvent = (event: JobEvent) => void

export type GenerateEvent =
  | { event: 'discovered'; source: string; suite: string; arch: string; packages: number }
  | { event: 'source-failed'; source: string; suite: string; arch: string; failure: Failure }
  | { event: 'planned'; jobs: number; skipped: number; postponed: number }
  /** of a queue elsewhere: its connection is lost or there again, or nobody takes jobs from it */
  | { event: 'queue'; state: 'lost' | 'back' | 'unattended'; message: string }
  /** `job` is its id: one kernel name may have several builds */
  | (JobEvent & { job: string })

export type OnEvent = (event: GenerateEvent) => void
