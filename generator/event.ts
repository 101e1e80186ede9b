/* The events of a run: one type for progress bars, for log lines, and for NDJSON. */
import type { BuildRecord, Failure, FailureCode, KernelName } from '../storage/index.ts'

/** The stages of a job, in their order. */
export const STAGES = [
  'unpack',
  'compile',
  'pahole',
  'inlined',
  'modules',
  'check',
  'publish',
] as const
export type Stage = (typeof STAGES)[number]

/** The events of one job. */
export type JobEvent =
  /** `instead`: this package is the fallback of another one */
  | {
      event: 'started'
      kernel: KernelName
      package: string
      size?: number | undefined
      instead?: Instead
    }
  | { event: 'stage'; kernel: KernelName; stage: Stage }
  /** bytes of the package that have been read */
  | { event: 'progress'; kernel: KernelName; read: number; size?: number | undefined }
  | { event: 'published'; kernel: KernelName; record: BuildRecord; read: number; seconds: number }
  | { event: 'failed'; kernel: KernelName; failure: Failure; seconds: number }

/** A package that failed before its fallback was started. */
export interface Instead {
  package: string
  code: FailureCode
  message: string
}

export type OnJobEvent = (event: JobEvent) => void

export type GenerateEvent =
  /** an index is being read: the file of it, the bytes of this file so far and in all, and how many files were read */
  | {
      event: 'reading'
      source: string
      suite: string
      arch: string
      url: string
      read: number
      size?: number | undefined
      files: number
    }
  /**
   * The first event of a run that reads sources whose keys are not on this machine. `published`: those whose keys
   * `fetchKeys` can fetch.
   */
  | { event: 'missing-keys'; sources: string[]; published: string[] }
  /** `refused`: entries of the index that are invalid and were left out, and why the first one was */
  | {
      event: 'discovered'
      source: string
      suite: string
      arch: string
      packages: number
      refused?: { entries: number; message: string }
    }
  | { event: 'source-failed'; source: string; suite: string; arch: string; failure: Failure }
  | { event: 'planned'; jobs: number; skipped: number; postponed: number }
  /** the connection to Redis is lost or back, or no worker takes jobs from the queue */
  | { event: 'queue'; state: 'lost' | 'back' | 'unattended'; message: string }
  /** `job` is the job's id: several builds may have one kernel name */
  | (JobEvent & { job: string })

export type OnEvent = (event: GenerateEvent) => void
