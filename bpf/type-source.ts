/*
 * Types as those read them who answer questions about BPF objects: found by their names, then followed by their
 * references. Nothing here tells how many types there are, or gives all of them: so an answer depends on no type that
 * was not read, and on the number of none (`type-trace.ts`).
 */
import type { Btf } from './btf.ts'

/** See the methods of `Btf`. Ids are equal or not; their order says something for types of one name only. */
export type TypeSource = Pick<
  Btf,
  | 'byteOrder'
  | 'pointerSize'
  | 'idsOf'
  | 'type'
  | 'kind'
  | 'vlen'
  | 'flag'
  | 'name'
  | 'sizeOrType'
  | 'word'
  | 'stringBytes'
  | 'stringIs'
  | 'head'
>
