/* What the names of package files tell. */
import type { PackageName } from './naming.ts'

/** A deb's parts: name_version_architecture.deb, or .ddeb. */
export function debNameOf(file: string): Required<Omit<PackageName, 'revision'>> | undefined {
  const match = /^([a-z0-9][a-z0-9+.-]{0,127})_([\w.+~:-]{1,128})_(\w{1,32})\.d?deb$/.exec(file)
  if (!match) return undefined
  const [, name, version, arch] = match as unknown as [string, string, string, string]
  return { name, version, arch }
}

/** An rpm's parts: name-version-revision.architecture.rpm. */
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
