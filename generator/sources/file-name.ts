/* The names of package files, taken apart. */
import type { PackageName } from './naming.ts'

/** Parses the file name of a deb or ddeb: name_version_architecture.deb. */
export function debNameOf(file: string): Required<Omit<PackageName, 'revision'>> | undefined {
  const match = /^([a-z0-9][a-z0-9+.-]{0,127})_([\w.+~:-]{1,128})_(\w{1,32})\.d?deb$/.exec(file)
  if (!match) return undefined
  const [, name, version, arch] = match as unknown as [string, string, string, string]
  return { name, version, arch }
}

/** Parses the file name of an rpm: name-version-revision.architecture.rpm. */
export function rpmNameOf(file: string): Required<PackageName> | undefined {
  const match = /^([\w.+-]{1,128})-([\w.+~^]{1,64})-([\w.+~^]{1,64})\.(\w{1,32})\.rpm$/.exec(file)
  if (!match) return undefined
  const [, name, version, revision, arch] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
  ]
  return { name, version, revision, arch }
}
