/*
 * tap adds its loader to NODE_OPTIONS of every child process, also where a test passes an environment of its own. Its
 * loader cannot start TypeScript's compiler, which is an ES module without an extension.
 */

/** The command that runs a program without NODE_OPTIONS, as `[file, args]` of `execFile`. */
export const withoutHooks = (program: string, args: readonly string[]): [string, string[]] => [
  'env',
  ['-u', 'NODE_OPTIONS', program, ...args],
]
