/*
 * Naming rules: they tell which packages contain a kernel, and which kernel. The meaning of a distribution's package
 * names is data. A rule matches a package's name and builds `uname -r` from parts of the name and the version.
 */
import Type from 'typebox'
import { GeneratorError } from '../error.ts'

export const NamingRule = Type.Object({
  /** regular expression for the whole name; its named groups are parts of `uname -r` */
  name: Type.String({ minLength: 1 }),
  /** regular expression for names that `name` matches but that are excluded */
  except: Type.Optional(Type.String({ minLength: 1 })),
  /** regular expression, like `name`, for the whole revision of an rpm (RPM's word is release) */
  revision: Type.Optional(Type.String({ minLength: 1 })),
  /** template of `uname -r`: `{…}` is a group, or the package's `version`, `revision` or `arch` */
  release: Type.String({ minLength: 1 }),
  /** the kernel's `uname -m` if it differs from the package's architecture: mipsel has 64-bit kernels */
  machine: Type.Optional(Type.String({ minLength: 1 })),
})
export type NamingRule = Type.Static<typeof NamingRule>

/** The parts of a package's name, in its distribution's words. */
export interface PackageName {
  name: string
  version?: string
  /** the part after the version of an rpm */
  revision?: string
  arch?: string
}

export interface Named {
  /** `uname -r` */
  release: string
  /** `uname -m`, if the rule sets it */
  machine?: string
  /** index of the rule that matched; of two packages of one kernel, the lower rank is preferred */
  rank: number
}

/** Compiles rules into a function that names a package by the first rule that matches; undefined if none does. */
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

/**
 * The names that packages of a release may have, by the rules whose names tell the release alone (`{uname}`), the best
 * first. A release that no package's name stands for has none.
 */
export function namesOfRelease(rules: readonly NamingRule[], release: string): string[] {
  const naming = namingOf(rules)
  return rules.flatMap((rule) => {
    const [, group] = /^\{(\w+)\}$/.exec(rule.release) ?? []
    const name = rule.name.replace(new RegExp(`\\(\\?<${group}>[^()]*\\)`), () => release)
    return group !== undefined && naming({ name })?.release === release ? [name] : []
  })
}

/** Errors: `invalid_index` for an invalid regular expression. */
function compile(rule: NamingRule): (of: PackageName) => string | undefined {
  const name = wholePattern(rule.name)
  const except = rule.except === undefined ? undefined : wholePattern(rule.except)
  const revision = rule.revision === undefined ? undefined : wholePattern(rule.revision)
  return (of) => {
    const named = name.exec(of.name)
    if (!named || except?.test(of.name)) return undefined
    const revised = revision?.exec(of.revision ?? '')
    if (revised === null) return undefined
    const parts = {
      version: of.version,
      revision: of.revision,
      arch: of.arch,
      ...named.groups,
      ...revised?.groups,
    }
    return fill(rule.release, parts)
  }
}

function wholePattern(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern})$`)
  } catch (cause) {
    const message = `invalid regular expression in a source: ${JSON.stringify(pattern)}`
    throw new GeneratorError('invalid_index', message, { cause })
  }
}

/** Fills the `{…}` of a template; undefined if a part is missing. */
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
