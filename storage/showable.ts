/*
 * URLs and paths as anyone may see them. A URL may have a password before its host, and a token in its query; a path
 * tells the directories of the operator's machine. `showable` is for building a message; `scrubbed` is for text that
 * others have built, such as the message of a system error.
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
  return withoutCredentials(text)
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
  return plain.replace(/[?#].*?(?=["'>)\]]*[.,:;]?["'>)\]]*$)/s, '')
}

/** The path or paths in a message of Node.js: `ENOENT: no such file or directory, open '/srv/x'`. */
const SYSTEM_ERROR = /\b(E[A-Z0-9]+: [^,\n]*), \w+ '.*'/gs
const QUOTED_PATH = /(["'`])((?:file:)?\/[^"'`\n]*\/[^"'`\n]*)\1/g
/** An absolute path of two or more parts, or a file URL. */
const PATH = /(?:file:\/*(?=[^\s/])|(?<![\w/:.*~\\-])\/)(?:[^\s/"'`,;:]+\/)+[^\s/"'`,;:]*/g
