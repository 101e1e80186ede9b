/** A text from outside without control characters and changes of direction, so that it cannot steer the terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, '?')
}
