/*
 * What the routes work with, put together once for each app. A feature that keeps something between requests has it
 * here, as a value of its own; what counts has `counts`, plain numbers since the start, for who exports them.
 */
import type { FastifyRequest } from 'fastify'
import type { Catalog, KernelName, Store } from '../storage/index.ts'
import { Bodies } from './bodies.ts'
import { Memory } from './memory.ts'

/** What an operator may set. */
export interface Settings {
  /** bytes of bodies that are kept in memory */
  memory: number
}

export const DEFAULTS: Settings = {
  memory: 256 * 1024 * 1024,
}

/** What makes BTF when somebody asks for it. */
export interface OnDemand {
  /**
   * The id of the job that makes this kernel's BTF, started where this request may start one; undefined where there is
   * none: no source offers the kernel, or none may be started.
   */
  request(kernel: KernelName, request: FastifyRequest): Promise<string | undefined>
}

export interface ContextOptions {
  store: Store
  catalog: Catalog
  settings?: Partial<Settings>
  onDemand?: OnDemand
}

export interface Context {
  readonly store: Store
  readonly catalog: Catalog
  readonly settings: Settings
  readonly onDemand: OnDemand | undefined
  readonly memory: Memory
  readonly bodies: Bodies
  /** Ends what is under way, and what was started for it. */
  close(): Promise<void>
}

/** Errors: the system's, for what is kept in files. */
export async function openContext(options: ContextOptions): Promise<Context> {
  const { store, catalog, onDemand } = options
  const settings = { ...DEFAULTS, ...options.settings }
  const memory = new Memory(settings.memory)
  const bodies = new Bodies(store, memory)
  return { store, catalog, settings, onDemand, memory, bodies, close: async () => {} }
}
