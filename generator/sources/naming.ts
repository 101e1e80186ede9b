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
  /** regular expression for the first line of a package's description, in an apt index; its groups are parts, too */
  description: Type.Optional(Type.String({ minLength: 1 })),
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

/** A name with the first line of the package's description, if the index has one. */
export interface DescribedName extends PackageName {
  description?: string
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
export function namingOf(rules: readonly NamingRule[]): (of: DescribedName) => Named | undefined {
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
 * The names that packages of a release may have, the best first: none for a release that no package's name stands for.
 * Undefined if the rules do not tell, because a name does not follow from the release alone.
 */
export function namesOfRelease(
  rules: readonly NamingRule[],
  release: string,
): string[] | undefined {
  const naming = namingOf(rules)
  const names: string[] = []
  for (const rule of rules) {
    const [, group] = /^\{(\w+)\}$/.exec(rule.release) ?? []
    const parts = group === undefined ? undefined : aroundGroup(rule.name, group)
    const [before, after] = [parts && literals(parts[0]), parts && literals(parts[1])]
    if (!before || !after) return undefined
    for (const start of before)
      for (const end of after) {
        const name = `${start}${release}${end}`
        if (naming({ name })?.release === release && !names.includes(name)) names.push(name)
      }
  }
  return names
}

/** What a pattern has before and after a named group; undefined if it has no such group. */
function aroundGroup(pattern: string, group: string): [string, string] | undefined {
  const start = pattern.indexOf(`(?<${group}>`)
  if (start < 0) return undefined
  let depth = 0
  for (let i = start; i < pattern.length; i++) {
    if (pattern[i] === '(') depth++
    if (pattern[i] === ')' && --depth === 0) return [pattern.slice(0, start), pattern.slice(i + 1)]
  }
  return undefined
}

/** All texts that a simple pattern matches: of letters, and of groups of such, `(a|b)` or `(a|b)?`. */
function literals(pattern: string): string[] | undefined {
  let texts = ['']
  for (const [part] of pattern.matchAll(/\([^()]*\)\??|[^()]+|./g)) {
    const [, group, optional] = /^\(([^()]*)\)(\??)$/.exec(part) ?? []
    const choices = group === undefined ? [part] : [...group.split('|'), ...(optional ? [''] : [])]
    if (!choices.every((choice) => /^[\w-]*$/.test(choice))) return undefined
    texts = texts.flatMap((text) => choices.map((choice) => text + choice))
  }
  return texts
}

/** Errors: `invalid_index` for an invalid regular expression. */
function compile(rule: NamingRule): (of: DescribedName) => string | undefined {
  const name = wholePattern(rule.name)
  const except = rule.except === undefined ? undefined : wholePattern(rule.except)
  const revision = rule.revision === undefined ? undefined : wholePattern(rule.revision)
  const description = rule.description === undefined ? undefined : wholePattern(rule.description)
  return (of) => {
    const named = name.exec(of.name)
    if (!named || except?.test(of.name)) return undefined
    const revised = revision?.exec(of.revision ?? '')
    if (revised === null) return undefined
    const described = description?.exec(of.description ?? '')
    if (described === null) return undefined
    const parts = {
      version: of.version,
      revision: of.revision,
      arch: of.arch,
      ...named.groups,
      ...revised?.groups,
      ...described?.groups,
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
