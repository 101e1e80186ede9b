/*
 * A reader for the XML of indexes. It reads a stream, and bounds the depth of elements and the length of tags and
 * texts. Document types, and so declarations of entities, are rejected (https://www.w3.org/TR/xml/#sec-entity-decl).
 */
import { SaxesParser } from 'saxes'
import { GeneratorError } from '../error.ts'

const MAX_DEPTH = 32
/** Characters of a tag or a text. Descriptions of packages have some thousands. */
const MAX_NODE = 1024 * 1024

export interface XmlHandlers {
  /** Called for an opening tag; `path` has the names from the root element to this one, joined by `/`. */
  open?(path: string, attributes: Readonly<Record<string, string>>): void
  /** Called at the end of an element; `text` is its content, if it has no elements in it. */
  close?(path: string, text: string): void
}

/**
 * Reads a document to its end; `root` is the name of its root element. Errors: `invalid_index`; those of the source.
 */
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
    throw new GeneratorError('invalid_index', `invalid XML: ${why}`)
  }
  parser.on('error', (error) => refuse(error.message))
  parser.on('doctype', () => refuse('document types are not allowed'))
  parser.on('opentag', ({ name, attributes }) => {
    node = 0
    text = ''
    if (path.push(name) > MAX_DEPTH) refuse(`elements are nested more than ${MAX_DEPTH} deep`)
    if (path[0] !== root) refuse(`the root element is ${path[0]}, expected ${root}`)
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
    if (node > MAX_NODE) refuse(`a tag or a text has more than ${MAX_NODE} characters`)
  }
  for await (const chunk of source) feed(decoder.decode(chunk, { stream: true }))
  feed(decoder.decode())
  parser.close()
}
