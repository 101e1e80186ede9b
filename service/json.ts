/* JSON as text. */

declare const isJson: unique symbol

/** A text that is one JSON value. Results cross threads and go to clients as text, which is never parsed on the way. */
export type JsonText = string & { readonly [isJson]: true }

/** A value as one line of JSON; 64-bit numbers become decimal strings. */
export function jsonOf(value: unknown): JsonText {
  const text = JSON.stringify(value, (_, of) => (typeof of === 'bigint' ? String(of) : of))
  return text as JsonText
}

/** A line of NDJSON: an object with the properties of `head`, then those of the object in `json`. */
export const lineOf = (head: Readonly<Record<string, unknown>>, json: JsonText): string =>
  `${JSON.stringify(head).slice(0, -1)},${json.slice(1)}\n`
