/*
 * Bounds the texts that come from an object. A small object may name one long string in thousands of relocations, so
 * each text is cut before it is joined with others.
 */

/** Characters of a name, path, access string or source line. The longest names of the kernel have below 200. */
export const MAX_NAME = 300
/** Characters of a message. */
export const MAX_MESSAGE = 600

/** The text, or its first `most - 1` characters and an ellipsis. */
export function short(text: string, most = MAX_NAME): string {
  if (text.length <= most) return text
  return `${text.slice(0, most - 1).replace(/[\ud800-\udbff]$/, '')}…`
}
