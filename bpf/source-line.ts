/* The source lines of a BPF object's instructions, from the line records in `.BTF.ext`. */

import type { LineInfo } from './ext.ts'

/** The source line of an instruction. */
export interface SourceLine {
  readonly file: string
  /** counted from 1 */
  readonly line: number
  readonly text: string
}

/** Line records by section, sorted by offset. */
export class Lines {
  readonly #bySection: ReadonlyMap<string, readonly LineInfo[]>

  constructor(lines: readonly LineInfo[]) {
    const inOrder = [...lines].sort((a, b) => a.offset - b.offset)
    this.#bySection = Map.groupBy(inOrder, (info) => info.section)
  }

  /** The last record at or before an instruction. */
  at(section: string, offset: number): SourceLine | undefined {
    return lineOf(this.#bySection.get(section)?.[this.#index(section, offset)])
  }

  /**
   * The line of an access: the record at the instruction if it names the member, else the nearest neighbour that does.
   * clang often puts the relocated instruction of a `BPF_CORE_READ` on the line before it.
   */
  naming(member: string, section: string, offset: number): SourceLine | undefined {
    const lines = this.#bySection.get(section) ?? []
    const index = this.#index(section, offset)
    const around = [...NEIGHBOURS].map((distance) => lines[index + distance])
    const named = around.find((info) => info !== undefined && mentions(info.text, member))
    return lineOf(named ?? lines[index])
  }

  #index(section: string, offset: number): number {
    const lines = this.#bySection.get(section) ?? []
    let [low, high] = [0, lines.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (lines[middle]!.offset <= offset) low = middle + 1
      else high = middle
    }
    return low - 1
  }
}

/** Records that are looked at for the name of a member, by their distance; what follows is likelier. */
const NEIGHBOURS = [0, 1, 2, 3, -1, -2, -3]

function lineOf(info: LineInfo | undefined): SourceLine | undefined {
  return info && { file: info.file, line: info.line, text: info.text.trim() }
}

/** True if a text has a name as a whole word. */
function mentions(text: string, name: string): boolean {
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + 1)) {
    const [before, after] = [text[at - 1] ?? '', text[at + name.length] ?? '']
    if (!/\w/.test(before) && !/\w/.test(after)) return true
  }
  return false
}
