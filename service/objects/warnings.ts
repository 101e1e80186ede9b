/* What minimized BTF cannot give an object, although the object loads with it. */

/** A warning for each type whose id in the kernel an object asks for. */
export const warningsOf = ({ kernelIds }: { kernelIds: readonly string[] }): string[] =>
  kernelIds.map(
    (type) =>
      `bpf_core_type_id_kernel of ${type} gives the id in the minimized BTF, not the id in the running kernel`,
  )

/** The warnings of several objects, each with the object's name. */
export const namedWarnings = (
  objects: readonly { name: string; warnings: readonly string[] }[],
): string[] => objects.flatMap(({ name, warnings }) => warnings.map((text) => `${name}: ${text}`))
