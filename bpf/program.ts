/* The programs and subprograms of a BPF object. */

/** A program or subprogram: a function symbol in an executable section. */
export interface BpfProgram {
  readonly name: string
  readonly section: string
  /** bytes from the start of the section */
  readonly offset: number
  /** bytes */
  readonly size: number
  /** whether the verifier checks it on its own: it is global and not hidden */
  readonly global: boolean
}

/**
 * The program that holds an instruction: the last one in its section that begins at or before it. `programs` are
 * sorted by section, then offset.
 */
export function programAt(
  programs: readonly BpfProgram[],
  section: string,
  offset: number,
): BpfProgram | undefined {
  let [low, high] = [0, programs.length]
  while (low < high) {
    const middle = (low + high) >> 1
    const p = programs[middle]!
    if (p.section === section ? p.offset <= offset : p.section < section) low = middle + 1
    else high = middle
  }
  const found = programs[low - 1]
  return found?.section === section && offset < found.offset + found.size ? found : undefined
}
