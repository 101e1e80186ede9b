/*
 * The defaults that follow the memory of the machine, or of its container. Caches, threads, uploads, answers and
 * compressors of bundles get a part of it each; no part grows beyond what a large machine needs. From 768 MB up, all of
 * them together fit, however the service is used (`mostMemory`).
 */
import { availableParallelism, totalmem } from 'node:os'
import { constrainedMemory } from 'node:process'

const MIB = 1024 ** 2

/** Node, the code and the catalog. */
const BASE = 160 * MIB
/** What a thread takes in addition to its JavaScript values: BTF, raw and compressed, and that which it keeps open. */
const THREAD_BUFFERS = 56 * MIB
/** What a bundle takes in addition to its compressor: the next members. */
const BUNDLE_BUFFERS = 32 * MIB
/** The encoder of xz allocates 11 times its dictionary. */
const XZ = 11
/** Packing an archive for btfhub's clients: xz with its default dictionary. */
const ARCHIVE_MEMORY = 104 * MIB
/** The two threads of the index of all types, with their buffers. */
const INDEX = 224 * MIB
/** Below this much memory a service has no index by default. */
const INDEX_NEEDS = 1024 * MIB
/** The longest line of an answer, and what a request takes in addition to one for each thread: three, and shared results. */
const LINE = 4 * MIB
const LINES = 4

/** The settings that follow the memory; sizes in bytes. */
export interface MemorySettings {
  /** threads that work on objects */
  threads: number
  taskMemory: number
  bodyCache: number
  resultMemory: number
  uploadMemory: number
  answerMemory: number
  bulkRequests: number
  bundles: number
  /** largest window of a bundle's compressor */
  bundleWindow: number
}

/** The memory of this machine or of its container, in bytes. */
export const machineMemory = (): number =>
  Math.min(totalmem(), constrainedMemory() || Number.POSITIVE_INFINITY)

/** Tells whether a service with this much memory has an index of all types by default. */
export const indexFits = (memory = machineMemory()): boolean => memory >= INDEX_NEEDS

/** The defaults for this much memory in bytes, and this many processors. */
export function defaultsFor(
  all = machineMemory(),
  processors = availableParallelism(),
): MemorySettings {
  const memory = indexFits(all) ? all - INDEX : all
  const part = (of: number, least: number, most: number) =>
    Math.floor(between(memory / of / MIB, least, most)) * MIB
  const taskMemory = part(8, 96, 256)
  const threads = floorBetween((0.3 * memory) / (taskMemory + THREAD_BUFFERS), 1, processors)
  const bundleWindow = 2 ** Math.floor(Math.log2(part(64, 4, 64)))
  return {
    threads,
    taskMemory,
    bodyCache: part(16, 16, 256),
    resultMemory: part(32, 8, 32),
    uploadMemory: part(8, 80, 512),
    answerMemory: part(32, 16, 64),
    bulkRequests: floorBetween(memory / 16 / bulkMemory(threads), 1, 16),
    bundles: floorBetween(memory / 4 / bundleMemory(bundleWindow), 1, 4),
    bundleWindow,
  }
}

/** The archives that are packed at a time. */
export const archivesAtOnce = (memory = machineMemory()): number => (memory < 2304 * MIB ? 1 : 2)

/** The most memory that a service with these settings takes, in bytes. */
export function mostMemory(settings: MemorySettings, archives: number, index: boolean): number {
  const { threads, taskMemory, bodyCache, resultMemory, uploadMemory, answerMemory } = settings
  const caches = bodyCache + resultMemory + uploadMemory + answerMemory
  const bulk = settings.bulkRequests * bulkMemory(threads)
  const bundles = settings.bundles * bundleMemory(settings.bundleWindow)
  const tasks = threads * (taskMemory + THREAD_BUFFERS)
  return BASE + caches + tasks + bulk + bundles + archives * ARCHIVE_MEMORY + (index ? INDEX : 0)
}

const bulkMemory = (threads: number): number => (threads + LINES) * LINE
const bundleMemory = (window: number): number => XZ * window + BUNDLE_BUFFERS

const between = (value: number, least: number, most: number): number =>
  Math.min(Math.max(value, least), most)
const floorBetween = (value: number, least: number, most: number): number =>
  Math.floor(between(value, least, most))
