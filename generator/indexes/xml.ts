/*
 * XML of indexes, read as a stream and bounded: in depth, in the length of what has no end, without document types and
 * so without entities of their own (https://www.w3.org/TR/xml/#sec-entity-decl).
 */
import { SaxesParser } from 'saxes'
import { GeneratorError } from '../error.ts'

const MAX_DEPTH = 32
/** characters without a tag, and of a tag; descriptions of packages have some thousands */
const MAX_NODE = 1024 * 1024

export interface XmlHandlers {
  /** A tag opens: the names of the elements around it, joined by `/`, with its own at the end. */
  open?(path: string, attributes: Readonly<Record<string, string>>): void
  /** An element ends; `text` is what was between its tags, where these had no tags between them. */
  close?(path: string, text: string): void
}

/** Reads a document whose root has that name to its end. Errors: `invalid_index`, and those of the source. */
export async function readXml(
  source: AsyncIterable<Uint8Array>,
  root: string,
  { open, close }: XmlHandlers,
): Promise<void> {
  const parser = new SaxesParser({ xmlns: false, position: false })
  const path: string[] = []
  let text = ''
  let node = 0
  const refuse = (why: string): never => {
    throw new GeneratorError('invalid_index', `the XML does not read: ${why}`)
  }
  parser.on('error', (error) => refuse(error.message))
  parser.on('doctype', () => refuse('it has a document type'))
  parser.on('opentag', ({ name, attributes }) => {
    node = 0
    text = ''
    if (path.push(name) > MAX_DEPTH) refuse('it is nested too deep')
    if (path[0] !== root) refuse(`it has ${path[0]}, not ${root}`)
    open?.(path.join('/'), attributes as Record<string, string>)
  })
  parser.on('text', (piece) => {
    node = 0
    text = piece
  })
  parser.on('closetag', () => {
    node = 0
    close?.(path.join('/'), text)
    path.pop()
    text = ''
  })
  const decoder = new TextDecoder()
  const feed = (piece: string) => {
    node += piece.length
    parser.write(piece)
    if (node > MAX_NODE) refuse('it has a tag or a text without end')
  }
  for await (const chunk of source) feed(decoder.decode(chunk, { stream: true }))
  feed(decoder.decode())
  parser.close()
}
