/*
 * The functions of a kernel, as a text that compresses well and needs no parser: a line for each name, in byte order.
 * A name is that of the symbol table, so the functions that the compiler made of another have their suffix: `.isra.N`,
 * `.constprop.N`, `.part.N`, `.cold`, `.llvm.N`. After the name come marks, each after a space:
 *
 *     several   functions of different files have this name
 *     refused   the kernel refuses kprobes there (kernel/kprobes.c `populate_kprobe_blacklist`)
 *     inlined   some of its calls are inlined, so nothing attached to it sees them
 *
 * A list that was made without looking for inlined calls has no mark `inlined`. Readers ignore other marks.
 */

import { decodeText, encodeText } from './bytes.ts'

const MARKS = ['several', 'refused', 'inlined'] as const
export type FunctionMark = (typeof MARKS)[number]

/** Names that a line can have: printable ASCII without space. */
const NAME = /^[!-~]+$/

/** The part of a function that GCC placed apart, because it rarely runs: no calls are lost in it. */
const COLD = /\.cold(\.\d+)?$/

/** The suffix of a static function that clang made global (ThinLTO); the kernel looks it up without. */
const PROMOTED = /\.llvm\.\d+$/

export class FunctionList {
  /** one line for each function, in byte order */
  readonly #lines: readonly string[]

  private constructor(lines: readonly string[]) {
    this.#lines = lines
  }

  /** A list of functions with their marks. A name that no line can have is left out. */
  static of(functions: ReadonlyMap<string, ReadonlySet<FunctionMark>>): FunctionList {
    const lines = [...functions].flatMap(([name, marks]) => {
      return NAME.test(name) ? [[name, ...MARKS.filter((mark) => marks.has(mark))].join(' ')] : []
    })
    return new FunctionList(lines.sort(compareUnits))
  }

  /** Reads a list that `encode` wrote. */
  static decode(bytes: Uint8Array): FunctionList {
    const lines = decodeText(bytes).split('\n')
    if (lines.at(-1) === '') lines.pop()
    return new FunctionList(lines)
  }

  encode(): Uint8Array {
    return encodeText(this.#lines.map((line) => `${line}\n`).join(''))
  }

  /** The number of names. */
  get size(): number {
    return this.#lines.length
  }

  /** The number of names with a mark. */
  count(mark: FunctionMark): number {
    return this.#lines.filter((line) => marksOf(line).has(mark)).length
  }

  /** This list with the mark `inlined` for those of its functions that are named. */
  withInlined(names: ReadonlySet<string>): FunctionList {
    const entries = this.#lines.map((line): [string, ReadonlySet<FunctionMark>] => {
      const [name, marks] = [nameOf(line), marksOf(line)]
      return [name, names.has(name) ? new Set([...marks, 'inlined']) : marks]
    })
    return FunctionList.of(new Map(entries))
  }

  /** The marks of a function; undefined if the kernel has none of that name. */
  find(name: string): ReadonlySet<FunctionMark> | undefined {
    const at = this.#place(name)
    const line = this.#lines[at]
    if (line !== undefined && nameOf(line) === name) return marksOf(line)
    const promoted = this.#from(`${name}.`).find((one) => PROMOTED.test(one.name))
    return promoted?.marks
  }

  /**
   * The names of the functions that the compiler made of another, in byte order: `foo.isra.0`, `foo.constprop.0`,
   * `foo.part.0`. Their calls do not go through the function itself. Cold parts are not among them.
   */
  clonesOf(name: string): string[] {
    const all = this.#from(`${name}.`).map((one) => one.name)
    return [...all.filter((one) => !COLD.test(one) && !PROMOTED.test(one))]
  }

  /** True if a function matches a pattern of `kprobe.multi`, in which `*` and `?` stand for others (libbpf `glob_match`). */
  matches(pattern: string): boolean {
    const text = pattern.replace(/[^\w]/g, (c) => (c === '*' ? '.*' : c === '?' ? '.' : `\\${c}`))
    // stars in a row match the same as one, and would take exponential time
    const regular = new RegExp(`^${text.replace(/(\.\*)+/g, '.*')}$`)
    return this.#lines.some((line) => regular.test(nameOf(line)))
  }

  /** The functions whose names begin with a prefix. */
  *#from(prefix: string): Generator<{ name: string; marks: ReadonlySet<FunctionMark> }> {
    for (let at = this.#place(prefix); this.#lines[at]?.startsWith(prefix); at++) {
      const line = this.#lines[at]!
      yield { name: nameOf(line), marks: marksOf(line) }
    }
  }

  /** The index of the first line that is not before a text. */
  #place(text: string): number {
    let [low, high] = [0, this.#lines.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#lines[middle]! < text) low = middle + 1
      else high = middle
    }
    return low
  }
}

const compareUnits = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

const nameOf = (line: string): string => line.split(' ', 1)[0]!

const isMark = (text: string): text is FunctionMark => (MARKS as readonly string[]).includes(text)

const marksOf = (line: string): ReadonlySet<FunctionMark> =>
  new Set(line.split(' ').slice(1).filter(isMark))
