/*
 * The types of partial BTF that the kernel's own BTF has, too. Headers declare more than a kernel compiles: every fifth
 * type of theirs is in no object file of the kernel, and a relocation against it fails on the kernel's own BTF. Two
 * facts hold for all kernels at hand, and test/long/headers.test.ts asserts them:
 *
 * - A type in both has the same layout.
 * - A compiler that writes a type writes all types that it reaches, through pointers too, as far as their definitions are
 *   included. So all that certain types reach is in the kernel, if those are.
 *
 * These are the roots: the task, what trace events record, and the enums of BPF itself. The generator defines the trace
 * events of a subsystem only if the kernel was built with it, so they also vouch for its other roots.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1 } from './bytes.ts'
import { essentialName } from './flavour.ts'
import { HEADER_SIZE, KIND, KINDS } from './kind.ts'

interface Root {
  readonly kinds: readonly number[]
  /** matches the whole name */
  readonly name: RegExp
  /** a struct that the BTF must have for the root to count */
  readonly if?: string
}

const STRUCT = [KIND.STRUCT]
const ENUM = [KIND.ENUM, KIND.ENUM64]

const ROOTS: readonly Root[] = [
  { kinds: STRUCT, name: /^task_struct$/ },
  // kernel/fork.c, mm/oom_kill.c and fs/namei.c are in every kernel with an MMU
  { kinds: STRUCT, name: /^(oom_control|renamedata)$/, if: 'trace_event_raw_oom_score_adj_update' },
  // some architectures lack the code of these: only arm calls ipi_raise, arm64 no longer calls tlb_flush
  { kinds: STRUCT, name: /^trace_event_raw_(?!ipi_(raise|handler)$|tlb_flush$)/ },
  { kinds: [KIND.TYPEDEF], name: /^btf_trace_(?!ipi_(raise|entry|exit)$|tlb_flush$)/ },
  { kinds: STRUCT, name: /^(tcp_sock|udp_sock)$/, if: 'trace_event_raw_tcp_event_sk' },
  // a kernel without them loads no programs
  { kinds: ENUM, name: /^bpf_(func_id|map_type|prog_type|attach_type)$/ },
]

/**
 * Structs of which some kernels have a second one of another layout, in a driver: libbpf refuses a field that differs.
 * Whole BTF tells, partial BTF does not.
 */
const AMBIGUOUS = /^(console|dma_chan|node)$/

const known = new WeakMap<Btf, Uint8Array>()

/** Marks, by id, the types of partial BTF that the kernel's own BTF has with the same layout. */
export function sureTypes(btf: Btf): Uint8Array {
  let sure = known.get(btf)
  if (!sure) {
    sure = reached(btf, rootsOf(btf))
    for (let id = 1; id < sure.length; id++)
      if (sure[id] === 1 && (btf.kind(id) === KIND.FWD || AMBIGUOUS.test(nameOf(btf, id))))
        sure[id] = 0
    known.set(btf, sure)
  }
  return sure
}

const nameOf = (btf: Btf, id: number): string =>
  decodeLatin1(essentialName(btf.stringBytes(btf.word(id, 0))))

function rootsOf(btf: Btf): number[] {
  const wanted = new Set(ROOTS.flatMap(({ kinds }) => kinds))
  const found: { id: number; root: Root }[] = []
  const conditions = new Set(ROOTS.flatMap((root) => root.if ?? []))
  const holding = new Set<string>()
  for (let id = 1; id < btf.endId; id++) {
    const kind = btf.kind(id)
    if (!wanted.has(kind)) continue
    const name = nameOf(btf, id)
    if (conditions.has(name)) holding.add(name)
    const root = ROOTS.find((one) => one.kinds.includes(kind) && one.name.test(name))
    if (root) found.push({ id, root })
  }
  return found.flatMap(({ id, root }) => {
    return root.if === undefined || holding.has(root.if) ? [id] : []
  })
}

/** Marks all types that some types reach. */
function reached(btf: Btf, roots: readonly number[]): Uint8Array {
  const marks = new Uint8Array(btf.endId)
  const open: number[] = []
  const mark = (id: number) => {
    if (id === 0 || marks[id] === 1) return
    marks[id] = 1
    open.push(id)
  }
  for (const id of roots) mark(id)
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    const layout = KINDS[btf.kind(id)]
    if (!layout) continue
    for (const at of layout.ids) mark(btf.word(id, at))
    if (layout.elementIds.length === 0) continue
    const first = HEADER_SIZE + layout.payload
    for (let n = 0; n < btf.vlen(id); n++)
      for (const at of layout.elementIds) mark(btf.word(id, first + n * layout.element + at))
  }
  return marks
}
