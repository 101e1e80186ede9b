/*
 * URLs and paths as anyone may see them. A URL may have a password before its host, and a token in its query; a path
 * tells the directories of the operator's machine. `showable` is for building a message; `scrubbed` is for text that
 * others have built, such as the message of a system error. A mirror may choose the text: each takes linear time.
 */

/** A URL without user, password, query and fragment; of a local file only the name. */
export function showable(location: string): string {
  return isUrl(location) ? showableUrl(location) : location.replace(/^.*[/\\]/s, '')
}

/** A text without the credentials in its URLs. */
export function withoutCredentials(text: string): string {
  return text.includes('://') ? text.replace(URLS, showableUrl) : text
}

/** A text without the credentials in its URLs, and without the directories of its local paths. */
export function scrubbed(text: string): string {
  if (!/[/\\]/.test(text)) return text
  return cut(withoutCredentials(text))
    .replace(SYSTEM_ERROR, '$1')
    .replace(QUOTED_PATH, (_, quote: string, path: string) => `${quote}${showable(path)}${quote}`)
    .replace(PATH, showable)
}

const isUrl = (location: string): boolean =>
  /^[a-z][a-z0-9+.-]*:\/\//i.test(location) && !/^file:/i.test(location)

/** A URL within a text, up to a blank. A password may have a blank, too: everything up to an @ is taken. */
const URLS = /(?<![a-z0-9+.-])(?!file:)[a-z][a-z0-9+.-]*:\/\/(?:[^/?#]*@)?[^\s<>]*/gi

/** Drops all up to the last @ of the host's part: a password may have one. If no URL parser reads it, up to any @. */
function showableUrl(url: string): string {
  const open = url.replace(/^([^:]*:\/\/)[^/?#]*@/, '$1')
  const isOdd = open.includes('@') && !URL.canParse(open)
  const plain = isOdd ? open.replace(/^([^:]*:\/\/).*@/s, '$1') : open
  const query = plain.search(/[?#]/)
  if (query < 0) return plain
  return plain.slice(0, query) + plain.slice(Math.max(query + 1, endOfUrl(plain)))
}

/** Where a URL ends: before the quotes and brackets that close it, and the punctuation among them. */
function endOfUrl(text: string): number {
  const open = beforeClosers(text, text.length)
  return beforeClosers(text, '.,:;'.includes(text.charAt(open - 1)) ? open - 1 : open)
}

function beforeClosers(text: string, end: number): number {
  let at = end
  while (at > 0 && `"'>)]`.includes(text.charAt(at - 1))) at--
  return at
}

/** Characters of a text whose paths are looked for: the expressions below take quadratic time. */
const MAX_TEXT = 4096

function cut(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text
}

/** The path or paths in a message of Node.js: `ENOENT: no such file or directory, open '/srv/x'`. */
const SYSTEM_ERROR = /\b(E[A-Z0-9]+: [^,\n]*), \w+ '.*'/gs
const QUOTED_PATH = /(["'`])((?:file:)?\/[^"'`\n]*\/[^"'`\n]*)\1/g
/** An absolute path of two or more parts, or a file URL. */
const PATH = /(?:file:\/*(?=[^\s/])|(?<![\w/:.*~\\-])\/)(?:[^\s/"'`,;:]+\/)+[^\s/"'`,;:]*/g
