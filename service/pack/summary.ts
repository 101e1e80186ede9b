/* What the packs of a store hold, for lists of them. A pack is never changed, so its records are read once. */
import {
  flavourOf,
  type KernelName,
  readPackRecords,
  type StoredPack,
  seriesOf,
} from '../../storage/index.ts'

/** The kernels of one series in a pack. */
export interface PackSeries extends Omit<KernelName, 'release'> {
  /** the end of its releases, such as `-cloud-amd64`; empty if they have none */
  flavour: string
  kernels: number
}

export interface PackSummary {
  /** SHA-256 of the file, in hex */
  digest: string
  /** bytes of the file */
  size: number
  /** bytes of its header and index, with which it begins */
  indexSize: number
  /** kernels by name and build */
  kernels: number
  /** different BTF */
  members: number
  series: readonly PackSeries[]
}

export class PackSummaries {
  /** by digest */
  #known = new Map<string, PackSummary>()

  /**
   * Describes packs, in their order; one that cannot be read is left out. Errors: those of `Store` that concern more than
   * one object.
   */
  async of(
    packs: readonly StoredPack[],
    isOfOne: (error: unknown) => boolean,
  ): Promise<PackSummary[]> {
    const known = new Map<string, PackSummary>()
    for (const pack of packs) {
      const summary =
        this.#known.get(pack.digest) ??
        (await this.#read(pack).catch((error: unknown) => {
          if (!isOfOne(error)) throw error
        }))
      if (summary) known.set(pack.digest, summary)
    }
    this.#known = known
    return [...known.values()]
  }

  async #read({ digest, info, source, members: { members } }: StoredPack): Promise<PackSummary> {
    const records = await readPackRecords(source)
    const series = new Map<string, PackSeries>()
    for (const { record } of records) {
      const { distro, version, arch, release } = record.kernel
      const key = seriesOf(record.kernel)
      const flavour = flavourOf(release)
      const one = series.get(key) ?? { distro, version, arch, flavour, kernels: 0 }
      one.kernels++
      series.set(key, one)
    }
    const indexSize = members[0]?.offset ?? info.size
    return {
      ...{ digest, size: info.size, indexSize, kernels: records.length, members: members.length },
      series: [...series].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one),
    }
  }
}
