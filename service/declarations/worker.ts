/*
 * Tasks of the threads that read and write an index. They take files by path, and keep the last one open. What a file or a
 * question is to blame for is a value: errors lose their class between threads.
 */
import { statSync } from 'node:fs'
import { setPriority } from 'node:os'
import { UnusableIndex } from './database.ts'
import { IndexReader } from './reader.ts'
import { type CatalogKernel, IndexWriter } from './writer.ts'

/** The questions of an index. */
export type IndexQuestion = Exclude<keyof IndexReader, 'close'>

/** What a task of an index comes to. */
export type IndexOutcome<T> = { value: T } | { unusable: string } | { invalid: string }

export interface IndexTasks {
  /** Asks a question. */
  ask: (task: {
    path: string
    question: IndexQuestion
    of: readonly unknown[]
  }) => IndexOutcome<unknown>
  /** The digests of the BTFs that an index has; `rebuild` begins with an empty one. */
  begin: (task: { path: string; rebuild: boolean }) => IndexOutcome<Set<string>>
  /** Takes up a BTF. The value is why it cannot be taken up. */
  add: (task: {
    path: string
    raw: Uint8Array
    kernel: CatalogKernel
  }) => IndexOutcome<string | undefined>
  /** Remembers that a BTF cannot be taken up. */
  fail: (task: { path: string; sha256: string; message: string }) => IndexOutcome<unknown>
  /** Replaces the list of kernels; `whole` if the index has the BTF of all of them. */
  kernels: (task: {
    path: string
    kernels: readonly CatalogKernel[]
    whole: boolean
  }) => IndexOutcome<unknown>
  /** Closes the file. */
  end: (task: { path: string }) => IndexOutcome<unknown>
}

function outcome<T>(work: () => T): IndexOutcome<T> {
  try {
    return { value: work() }
  } catch (error) {
    if (error instanceof UnusableIndex) return { unusable: error.message }
    if (error instanceof RangeError) return { invalid: error.message }
    throw error
  }
}

let reader: { path: string; file: string; index: IndexReader } | undefined

/** The reader of a path; a file that was made again is opened again. */
function readerOf(path: string): IndexReader {
  const { dev, ino } = statSync(path, { throwIfNoEntry: false }) ?? {}
  const file = `${dev} ${ino}`
  if (reader?.path === path && reader.file === file) return reader.index
  reader?.index.close()
  reader = undefined
  reader = { path, file, index: new IndexReader(path) }
  return reader.index
}

let writer: IndexWriter | undefined

/** Lets everything else go first. On Linux each thread has a priority of its own; elsewhere it is that of the process. */
function stepBack(): void {
  if (process.platform !== 'linux') return
  try {
    setPriority(10)
  } catch {
    // it is a courtesy
  }
}

function writerOf(path: string): IndexWriter {
  if (writer?.path !== path) {
    closeWriter()
    writer = IndexWriter.open(path)
  }
  return writer
}

function closeWriter(): void {
  writer?.close()
  writer = undefined
}

const TASKS: IndexTasks = {
  ask: ({ path, question, of }) =>
    outcome(() => {
      const index = readerOf(path)
      return (index[question] as (...of: readonly unknown[]) => unknown).apply(
        index,
        of as unknown[],
      )
    }),
  begin: ({ path, rebuild }) =>
    outcome(() => {
      stepBack()
      closeWriter()
      writer = IndexWriter.open(path, { rebuild })
      return writer.digests()
    }),
  add: ({ path, raw, kernel }) => outcome(() => writerOf(path).add(raw, kernel)),
  fail: ({ path, sha256, message }) => outcome(() => writerOf(path).fail(sha256, message)),
  kernels: ({ path, kernels, whole }) =>
    outcome(() => writerOf(path).setKernels(kernels, { whole })),
  end: () => outcome(() => closeWriter()),
}

/** A task as the pool takes it. */
const pooled =
  <T, R>(task: (of: T) => R) =>
  (of: T): { value: R } => ({ value: task(of) })

// the pool calls the tasks by these names
export const ask = pooled(TASKS.ask)
export const begin = pooled(TASKS.begin)
export const add = pooled(TASKS.add)
export const fail = pooled(TASKS.fail)
export const kernels = pooled(TASKS.kernels)
export const end = pooled(TASKS.end)
