/* /types/NAME and /functions/NAME: what one kernel has of a name, with links for every other name. */
import type { LinkedText, ListingLine, TypeListing, TypeUsers } from '../../bpf/index.ts'
import type { TypesOfName } from '../threads/worker.ts'
import type { HistorySummary } from './history-page.ts'
import type { KernelRow, KernelTable } from './kernel-table.ts'
import { anchorOf, CACHE_LINE, classOf, drawLayout, placeOf } from './layout-picture.ts'
import type { Page } from './render.ts'
import { functionUrl, kernelUrl, type PagePart, typeUrl, urlOf } from './url.ts'

/** Lines of one type, and of all types of a page. */
const MAX_LINES = 700
/** Kernels that the choice of a page offers. */
const MAX_CHOICES = 80

export interface KernelChoice {
  readonly groups: readonly {
    readonly label: string
    readonly kernels: readonly {
      readonly name: string
      readonly release: string
      readonly chosen: boolean
    }[]
  }[]
  readonly name: string
  readonly release: string
  readonly distro: string
  readonly href: string
  readonly newer?: { readonly release: string; readonly href: string }
  readonly older?: { readonly release: string; readonly href: string }
}

interface LineView {
  /** bytes, as pahole prints them; absent for braces */
  readonly offset?: string
  readonly size?: string
  readonly depth: number
  readonly text: LinkedText
  readonly id?: string
  /** the member or enumerator, for its history */
  readonly path?: string
  readonly of?: string
  readonly gap?: boolean
  /** the cache line that begins before this line */
  readonly cacheLine?: number
}

export interface TypeView {
  readonly query: string
  readonly name: string
  readonly choice: KernelChoice
  /** whether the address names the kernel */
  readonly isChosen: boolean
  readonly types: readonly {
    readonly listing: Omit<TypeListing, 'lines'>
    readonly lines: readonly LineView[]
    /** lines that are left out */
    readonly omitted: number
    readonly picture?: string
    readonly rowBytes?: number
    readonly cacheLines: number
    readonly isComposite: boolean
  }[]
  readonly omitted: number
  readonly users: TypeUsers
  readonly isKfunc: boolean
  readonly attach?: FunctionFacts
  readonly other?: string
  /** absent without an index of all types */
  readonly history?: HistorySummary
}

/** What the kernel's symbol table says of a function. */
export interface FunctionFacts {
  readonly known: boolean
  readonly present: boolean
  readonly marks: readonly string[]
  readonly clones: readonly string[]
}

export interface TypePageOptions {
  readonly table: KernelTable
  readonly row: KernelRow
  readonly isChosen: boolean
  readonly name: string
  readonly found: TypesOfName
  readonly part: PagePart
  readonly attach?: FunctionFacts
  readonly history?: HistorySummary
}

export function typePage(options: TypePageOptions): Page {
  const { table, row, isChosen, name, found, part, attach, history } = options
  const listings = found.listings.filter(({ kind }) => (kind === 'func') === (part === 'function'))
  const others = found.listings.length > listings.length
  const address = part === 'function' ? functionUrl : typeUrl
  const { kernel } = row
  const [first] = listings
  const noun = part === 'function' ? 'function' : (first?.kind ?? 'type')
  let left = MAX_LINES
  const types = listings.map((listing) => {
    const { lines, ...rest } = listing
    const shown = lines.slice(0, Math.max(left, 12))
    left -= shown.length
    const isComposite = lines.some(({ is }) => is === 'member' || is === 'close')
    const picture = isComposite && lines.length === shown.length ? drawLayout(listing) : undefined
    return {
      listing: rest,
      lines: linesOf(shown, isComposite),
      omitted: lines.length - shown.length,
      ...(picture && { picture: picture.svg, rowBytes: picture.rowBytes }),
      cacheLines: Math.ceil((listing.size ?? 0) / CACHE_LINE),
      isComposite,
    }
  })
  const view: TypeView = {
    query: name,
    name,
    choice: choiceOf(table, row, (kernelName) => address(name, kernelName)),
    isChosen,
    types,
    omitted: found.omitted,
    users: found.users,
    isKfunc: found.isKfunc,
    ...(attach && { attach }),
    ...(history && { history }),
    ...(others && {
      other: (part === 'function' ? typeUrl : functionUrl)(name, isChosen ? row.name : undefined),
    }),
  }
  const where = `Linux ${kernel.release} (${kernel.distro} ${kernel.version}, ${kernel.arch})`
  const size = first?.size === undefined ? '' : `, ${first.size} bytes`
  return {
    template: 'type',
    title: isChosen ? `${noun} ${name} in ${where}` : `${noun} ${name} in the Linux kernel`,
    description:
      part === 'function'
        ? `The prototype of ${name}() in ${where}, and whether programs can be attached to it.`
        : `Layout of ${noun} ${name} in ${where}${size}: offsets, holes, cache lines, and what uses it.`,
    path: address(name, isChosen ? row.name : undefined),
    part: 'types',
    view,
  }
}

function linesOf(lines: readonly ListingLine[], isComposite: boolean): LineView[] {
  let cacheLine = 0
  return lines.map((line): LineView => {
    switch (line.is) {
      case 'open':
      case 'text':
        return { depth: line.depth, text: line.text }
      case 'value':
        return {
          depth: line.depth,
          text: [`${line.name} = ${line.value},`],
          id: anchorOf(line.name),
          path: line.name,
        }
      case 'hole':
      case 'padding':
        return {
          ...{
            offset: placeOf(line.offset),
            size: String(line.size),
            depth: line.depth,
            gap: true,
          },
          text: [
            line.is === 'hole' ? `hole of ${line.size} bytes` : `padding of ${line.size} bytes`,
          ],
        }
      case 'member':
      case 'close': {
        const at = Math.floor(line.offset / 8 / CACHE_LINE)
        const begins = isComposite && line.is === 'member' && line.depth === 1 && at > cacheLine
        if (begins) cacheLine = at
        return {
          offset: placeOf(line.offset),
          size: line.bits > 0 ? bitsOf(line.bits) : String(line.size),
          depth: line.depth,
          text: line.text,
          ...(line.path !== '' && { id: anchorOf(line.path), path: line.path }),
          of: classOf(line),
          ...(begins && { cacheLine: at }),
        }
      }
      default:
        return line satisfies never
    }
  })
}

const bitsOf = (bits: number): string => (bits === 1 ? '1 bit' : `${bits} bits`)

/** The kernels that a page offers to choose from: the newest of each series, and the neighbours of the chosen one. */
export function choiceOf(
  table: KernelTable,
  row: KernelRow,
  hrefOf: (name: string) => string,
): KernelChoice {
  const newest = table.newestOfSeries().slice(0, MAX_CHOICES)
  const offered = newest.includes(row) ? newest : [row, ...newest]
  const label = ({ kernel }: KernelRow) => `${kernel.distro} ${kernel.version} ${kernel.arch}`
  const series = table.series(row).filter(({ served }) => served)
  const at = series.indexOf(row)
  const neighbour = (one: KernelRow) => ({ release: one.kernel.release, href: hrefOf(one.name) })
  const [newer, older] = [series[at - 1], series[at + 1]]
  return {
    groups: [...Map.groupBy(offered, label)].map(([text, rows]) => ({
      label: text,
      kernels: rows.map((one) => ({
        name: one.name,
        release: one.kernel.release,
        chosen: one === row,
      })),
    })),
    name: row.name,
    release: row.kernel.release,
    distro: label(row),
    href: kernelUrl(row.name),
    ...(newer && { newer: neighbour(newer) }),
    ...(older && { older: neighbour(older) }),
  }
}

/** /types: where to begin. */
export function typesPage(table: KernelTable, row: KernelRow | undefined): Page {
  const groups = [
    {
      title: 'Processes',
      names: ['task_struct', 'cred', 'mm_struct', 'nsproxy', 'pid', 'signal_struct'],
    },
    {
      title: 'Network',
      names: ['sock', 'sock_common', 'inet_sock', 'tcp_sock', 'sk_buff', 'net_device'],
    },
    { title: 'Files', names: ['file', 'inode', 'dentry', 'super_block', 'path', 'mount'] },
    {
      title: 'BPF',
      names: ['bpf_prog', 'bpf_map', 'bpf_prog_type', 'bpf_map_type', 'bpf_func_id', 'btf'],
    },
  ]
  const view = {
    groups: groups.map(({ title, names }) => ({
      title,
      types: names.map((name) => ({ name, href: typeUrl(name) })),
    })),
    functions: [
      'vfs_read',
      'do_sys_openat2',
      'tcp_v4_connect',
      'security_file_open',
      'bpf_get_current_task',
    ].map((name) => ({ name, href: functionUrl(name) })),
    ...(row && { choice: choiceOf(table, row, (kernel) => urlOf('/types', { kernel })) }),
  }
  return {
    template: 'types',
    title: 'Types and functions of Linux kernels',
    description:
      'Look up structs, unions, enums, typedefs and functions of Linux kernels: offsets, holes, sizes, and what changed.',
    path: '/types',
    part: 'types',
    view,
  }
}
