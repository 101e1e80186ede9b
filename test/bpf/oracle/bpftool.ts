/*
 * The oracle for minimising and reading: bpftool. `gen min_core_btf` makes the BTF to compare with, and `btf dump -j`
 * reads both files. They are compared as graphs, by the content and the targets of types; type ids do not count.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)
const MAX_DUMP = 1 << 29

/** A type as bpftool prints it, with references by id. */
export interface DumpedType {
  id: number
  kind: string
  /** `(anon)` for an anonymous type */
  name: string
  size?: number
  type_id?: number
  [property: string]: unknown
}

/** Runs `bpftool gen min_core_btf`. Returns bpftool's message if it fails, undefined otherwise. */
export async function minimizeWithBpftool(
  btf: string,
  objects: readonly string[],
  output: string,
  command: readonly string[] = ['bpftool'],
): Promise<string | undefined> {
  const [program = '', ...first] = command
  try {
    await run(program, [...first, 'gen', 'min_core_btf', btf, output, ...objects])
    return undefined
  } catch (error) {
    return String((error as { stderr?: unknown }).stderr).trim()
  }
}

/** The types of a BTF file in order; `types[0]` has id 1. Integers beyond the safe range are bigint. */
export async function dumpTypes(file: string): Promise<DumpedType[]> {
  const command = ['btf', 'dump', 'file', file, '--json', 'format', 'raw']
  const { stdout } = await run('bpftool', command, { maxBuffer: MAX_DUMP })
  return JSON.parse(stdout.replace(/"val":(-?\d{16,})/g, '"val":"$1"')).types
}

/**
 * The differences of two graphs, one line each: types that only the first (`-`) or second (`+`) graph has, by content.
 * If all contents are equal, the types with different targets. Empty if the graphs are equal.
 */
export function compareGraphs(
  first: readonly DumpedType[],
  second: readonly DumpedType[],
): string[] {
  const said = difference(first.map(describer(first)), second.map(describer(second)))
  if (said.length > 0) return said
  const numbers = new Map<string, number>()
  let before = 0
  let [a, b] = [first.map(() => 0), second.map(() => 0)]
  // Types are classed by content, then by the classes of their targets, until a round gives no new classes.
  for (;;) {
    a = refine(first, a, numbers)
    b = refine(second, b, numbers)
    const classes = new Set([...a, ...b]).size
    if (classes === before) break
    before = classes
    numbers.clear()
  }
  const describe = describer(first)
  const names = new Map(first.map((type, at) => [a[at]!, describe(type)]))
  const describeSecond = describer(second)
  second.forEach((type, at) => {
    names.set(b[at]!, describeSecond(type))
  })
  return difference(a, b).map(
    (line) => `${line[0]} leads elsewhere: ${names.get(Number(line.slice(2)))}`,
  )
}

const REFERENCES = new Set(['type_id', 'ret_type_id', 'index_type_id'])

/** One round: gives each type a class, from its content and the classes of its targets. */
function refine(types: readonly DumpedType[], classes: number[], numbers: Map<string, number>) {
  return types.map((type) => {
    const key = JSON.stringify(type, (property, value) => {
      if (REFERENCES.has(property)) return value === 0 ? 'void' : classes[value - 1]
      return property === 'id' ? undefined : value
    })
    const number = numbers.get(key) ?? numbers.size
    numbers.set(key, number)
    return number
  })
}

/** A type in one line. References are shown by name; anonymous ones by kind and size. */
function describer(types: readonly DumpedType[]): (type: DumpedType) => string {
  const short = (id: number, depth = 0): string => {
    const type = types[id - 1]
    if (id === 0) return 'void'
    if (!type) return `no type ${id}`
    if (type.name !== '(anon)') return `${type.kind} ${type.name}`
    if (type.type_id !== undefined && depth < 8) {
      return `${type.kind} of ${short(type.type_id, depth + 1)}`
    }
    return `${type.kind} of size ${type.size}`
  }
  return (type) =>
    JSON.stringify(type, (property, value) => {
      if (REFERENCES.has(property)) return short(value)
      return property === 'id' ? undefined : value
    })
}

/** The difference of two multisets: `-` before elements that the first has more often, `+` before the second's. */
function difference(first: readonly unknown[], second: readonly unknown[]): string[] {
  const count = new Map<string, number>()
  for (const item of first) count.set(`${item}`, (count.get(`${item}`) ?? 0) - 1)
  for (const item of second) count.set(`${item}`, (count.get(`${item}`) ?? 0) + 1)
  return [...count].flatMap(([item, n]) => Array(Math.abs(n)).fill(`${n < 0 ? '-' : '+'} ${item}`))
}
