/* The inputs that once went wrong; test/fixtures/cases/README.md says how each is made. */
import { fileURLToPath } from 'node:url'

/** The path of a case. */
export const caseFile = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/cases/${name}`, import.meta.url))
