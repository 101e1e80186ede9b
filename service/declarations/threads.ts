/*
 * An index in threads: questions in one, updates in another, so that neither waits for the other, and the service for none
 * of them. The thread of updates ends when there is nothing to do. What a question or a BTF takes is limited.
 */
import { extname, join } from 'node:path'
import { ServiceError } from '../error.ts'
import { Pool } from '../threads/pool.ts'
import { UnusableIndex } from './database.ts'
import type { IndexReader } from './reader.ts'
import type { UpdatableIndex } from './update.ts'
import type { IndexOutcome, IndexQuestion, IndexTasks } from './worker.ts'

/** Limits of questions: a search takes 50 ms over 400 kernels. `service/memory.ts` counts on the memory of both. */
const QUESTIONS = { threads: 1, time: 10_000, memory: 80, maxQueue: 128, idle: 600_000 }
/** Limits of one BTF: the first of an index takes 2 s and 64 MB. */
const UPDATES = { threads: 1, time: 60_000, memory: 96, maxQueue: 1, idle: 1000 }

const WORKER = join(import.meta.dirname, `worker${extname(import.meta.filename)}`)

/** Errors of the questions: `UnusableIndex`; `invalid_request` for an invalid cursor; `too_complex`, `busy`. */
export class IndexThreads implements UpdatableIndex {
  readonly #path: string
  readonly #questions = new Pool<IndexTasks>(QUESTIONS, WORKER)
  readonly #updates = new Pool<IndexTasks>(UPDATES, WORKER)

  constructor(path: string) {
    this.#path = path
  }

  /** Asks a question of `IndexReader`. */
  async ask<Q extends IndexQuestion>(
    question: Q,
    ...of: Parameters<IndexReader[Q]>
  ): Promise<ReturnType<IndexReader[Q]>> {
    const task = { path: this.#path, question, of }
    return outcomeOf(await this.#questions.run('ask', task)) as ReturnType<IndexReader[Q]>
  }

  async begin(rebuild: boolean): Promise<Set<string>> {
    return outcomeOf(await this.#updates.run('begin', { path: this.#path, rebuild }))
  }

  async add(
    raw: Uint8Array,
    kernel: Parameters<UpdatableIndex['add']>[1],
  ): Promise<string | undefined> {
    const task = { path: this.#path, raw, kernel }
    return outcomeOf(await this.#updates.run('add', task))
  }

  async fail(sha256: string, message: string): Promise<void> {
    outcomeOf(await this.#updates.run('fail', { path: this.#path, sha256, message }))
  }

  async setKernels(
    kernels: Parameters<UpdatableIndex['setKernels']>[0],
    whole: boolean,
  ): Promise<void> {
    outcomeOf(await this.#updates.run('kernels', { path: this.#path, kernels, whole }))
  }

  async end(): Promise<void> {
    outcomeOf(await this.#updates.run('end', { path: this.#path }))
  }

  /** Ends the threads. An update that is cut off leaves a whole index. */
  async close(): Promise<void> {
    await Promise.all([this.#questions.close(), this.#updates.close()])
  }
}

/** The value of an outcome. Errors: `UnusableIndex`, `invalid_request`. */
function outcomeOf<T>(outcome: IndexOutcome<T>): T {
  if ('value' in outcome) return outcome.value
  if ('unusable' in outcome) throw new UnusableIndex(outcome.unusable)
  throw new ServiceError('invalid_request', outcome.invalid)
}
