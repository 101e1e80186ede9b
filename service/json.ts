/* JSON of what bpf/ gives. */

/** A value as one line of JSON; 64-bit numbers as decimal strings. */
export function jsonOf(value: unknown): string {
  return JSON.stringify(value, (_, of) => (typeof of === 'bigint' ? String(of) : of))
}
