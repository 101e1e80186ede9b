/* JSON of what bpf/ gives. */

/** A value as one line of JSON; 64-bit numbers as decimal strings. */
export function jsonOf(value: unknown): string {
  return JSON.stringify(value, (_, of) => (typeof of === 'bigint' ? String(of) : of))
}

/** A line of JSON: what it is about, then what an object in JSON says. */
export const lineOf = (about: Readonly<Record<string, unknown>>, json: string): string =>
  `${JSON.stringify(about).slice(0, -1)},${json.slice(1)}\n`
