/*
 * Which packages have a kernel, and which: what a distribution's names mean is data. A rule looks at a package's name,
 * and builds `uname -r` of the parts that it finds there and in the package's version.
 */
import Type from 'typebox'
import { GeneratorError } from '../error.ts'

export const NamingRule = Type.Object({
  /** a regular expression of the whole name; its named groups are parts of `uname -r` */
  name: Type.String({ minLength: 1 }),
  /** names that it takes and should not: a regular expression */
  except: Type.Optional(Type.String({ minLength: 1 })),
  /** of the whole revision of an rpm (what RPM calls its release), as `name` */
  revision: Type.Optional(Type.String({ minLength: 1 })),
  /** `uname -r`: `{…}` stands for a group, or for `version`, `revision`, `arch` of the package */
  release: Type.String({ minLength: 1 }),
  /** the kernel's `uname -m`, where it is not that of the packages' architecture: mipsel has kernels of 64 bits */
  machine: Type.Optional(Type.String({ minLength: 1 })),
})
export type NamingRule = Type.Static<typeof NamingRule>

/** What a package is called, in its distribution's words. */
export interface PackageName {
  name: string
  version?: string
  /** what follows the version of an rpm */
  revision?: string
  arch?: string
}

export interface Named {
  /** `uname -r` */
  release: string
  /** `uname -m`, where the rule says it */
  machine?: string
  /** which rule found it: of two packages of one kernel that of the earlier is the better */
  rank: number
}

/** Reads package names by rules, the first that fits; undefined for what is none of theirs. */
export function namingOf(rules: readonly NamingRule[]): (of: PackageName) => Named | undefined {
  const compiled = rules.map(compile)
  return (of) => {
    for (const [rank, releaseOf] of compiled.entries()) {
      const release = releaseOf(of)
      const { machine } = rules[rank]!
      if (release !== undefined) return { release, rank, ...(machine && { machine }) }
    }
    return undefined
  }
}

/** Errors: `invalid_index` for what is no regular expression. */
function compile(rule: NamingRule): (of: PackageName) => string | undefined {
  const name = whole(rule.name)
  const except = rule.except === undefined ? undefined : whole(rule.except)
  const revision = rule.revision === undefined ? undefined : whole(rule.revision)
  return (of) => {
    const named = name.exec(of.name)
    if (!named || except?.test(of.name)) return undefined
    const revised = revision?.exec(of.revision ?? '')
    if (revised === null) return undefined
    const { version, revision: all, arch } = of
    const parts = { version, revision: all, arch, ...named.groups, ...revised?.groups }
    return fill(rule.release, parts)
  }
}

function whole(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern})$`)
  } catch (cause) {
    throw new GeneratorError(
      'invalid_index',
      `a source's ${JSON.stringify(pattern)} does not read`,
      {
        cause,
      },
    )
  }
}

/** A template with its `{…}` filled in; undefined where one has nothing to be filled with. */
export function fill(
  template: string,
  parts: Readonly<Record<string, string | undefined>>,
): string | undefined {
  let missing = false
  const text = template.replace(/\{(\w+)\}/g, (_, part: string) => {
    missing ||= parts[part] === undefined
    return parts[part] ?? ''
  })
  return missing ? undefined : text
}
