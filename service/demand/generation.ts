/*
 * The generator, as the service sees it: the composition root of a process passes an implementation in. A generation is
 * plain data, and the API returns it unchanged.
 */
import Type, { type Static } from 'typebox'
import { KernelName } from '../../storage/index.ts'
import { PublicFailure } from '../kernel/public-record.ts'

const GenerationPackage = Type.Object({
  name: Type.String(),
  version: Type.String(),
  state: Type.Enum(['waiting', 'working', 'published', 'failed']),
  stage: Type.Optional(Type.String()),
  /** bytes read so far */
  read: Type.Integer(),
  /** total bytes, if known */
  size: Type.Optional(Type.Integer()),
})

export const Generation = Type.Object({
  id: Type.String(),
  kernel: KernelName,
  /**
   * `searching` and `working` are under way; the end is `published` (the BTF is in the store), `unknown` (no source has
   * the kernel) or `failed`
   */
  state: Type.Enum(['searching', 'working', 'published', 'unknown', 'failed']),
  /** one for each build of the kernel */
  packages: Type.Array(GenerationPackage),
  failure: Type.Optional(PublicFailure),
})
type WireGeneration = Static<typeof Generation>
type WirePackage = WireGeneration['packages'][number]

export type Generation = Omit<WireGeneration, 'packages'> & {
  packages: (Omit<WirePackage, 'size'> & { size?: number | undefined })[]
}

export interface BtfGenerator {
  /** the number of generations under way */
  readonly underWay: number
  /** Returns the generation of a kernel, and starts it if there is none. Returns undefined if the queue is full. */
  submit(kernel: KernelName): Generation | undefined
  /** Returns a generation that is under way or has ended recently. */
  get(id: string): Generation | undefined
  /** Yields a generation as it is now, and after each change, until it ends or the signal aborts. */
  watch(id: string, signal?: AbortSignal): AsyncIterable<Generation>
}

/** Tells whether the state is final. */
export const isEnded = ({ state }: Pick<Generation, 'state'>): boolean =>
  state !== 'searching' && state !== 'working'
