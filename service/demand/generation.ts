/*
 * What makes BTF when somebody asks for it, as the service sees it: whoever puts a process together plugs a generator
 * in. A generation is plain data, and goes out as it is.
 */
import Type, { type Static } from 'typebox'
import { KernelName } from '../../storage/index.ts'
import { PublicFailure } from '../kernel/public-record.ts'

const Made = Type.Object({
  name: Type.String(),
  version: Type.String(),
  state: Type.Enum(['waiting', 'working', 'published', 'failed']),
  stage: Type.Optional(Type.String()),
  /** bytes that were read */
  read: Type.Integer(),
  /** bytes in all, where they are known */
  size: Type.Optional(Type.Integer()),
})

export const Generation = Type.Object({
  id: Type.String(),
  kernel: KernelName,
  /** the first two change yet; then its BTF is there, no source offers it, or it failed */
  state: Type.Enum(['searching', 'working', 'published', 'unknown', 'failed']),
  /** of each build under the kernel's name */
  packages: Type.Array(Made),
  failure: Type.Optional(PublicFailure),
})
type Sent = Static<typeof Generation>
type Part = Sent['packages'][number]

export type Generation = Omit<Sent, 'packages'> & {
  packages: (Omit<Part, 'size'> & { size?: number | undefined })[]
}

export interface BtfGenerator {
  /** How many generations are under way. */
  readonly underWay: number
  /** The generation of a kernel, begun where none is under way; undefined where too many are. */
  submit(kernel: KernelName): Generation | undefined
  /** A generation that is under way, or ended not long ago. */
  get(id: string): Generation | undefined
  /** A generation as it is now, and after each change, until it has ended or the signal aborts. */
  watch(id: string, signal?: AbortSignal): AsyncIterable<Generation>
}

/** Whether nothing more becomes of it. */
export const isEnded = ({ state }: Pick<Generation, 'state'>): boolean =>
  state !== 'searching' && state !== 'working'
