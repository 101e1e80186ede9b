#!/bin/sh
# Makes the Dockerfile's base images without a registry: Debian 13 with debootstrap, and the same with the Node and npm of
# this checkout. Usage, as root: docker/bases.sh, then
#   buildah build --isolation chroot --format docker --file docker/Dockerfile --target service \
#     --build-arg NODE_IMAGE=localhost/btfmill-node --build-arg DEBIAN_IMAGE=localhost/btfmill-debian .
# $BUILDAH is the command with its options (default: buildah), $MIRROR the mirror (default: the one of this machine's apt).
set -eu
cd "$(dirname "$0")/.."
buildah=${BUILDAH:-buildah}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

own_mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | sort -u | head -n 1
}
mirror=${MIRROR:-$(own_mirror)}

debootstrap --variant=minbase trixie "$scratch/root" "${mirror:-http://ftp.debian.org/debian}" >&2
rm -rf "$scratch/root/var/lib/apt/lists"/* "$scratch/root/var/cache/apt"/* "$scratch/root/var/log"/* \
  "$scratch/root/usr/share/doc"/* "$scratch/root/usr/share/man"/* "$scratch/root/usr/share/locale"/*

image() { # NAME ROOT
  container=$($buildah from scratch)
  $buildah add --quiet "$container" "$2" / >/dev/null
  $buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$container"
  $buildah commit --quiet --format docker --rm "$container" "$1" >/dev/null
  echo "$1"
}

image localhost/btfmill-debian "$scratch/root"

node=$(readlink -f node_modules/.bin/node || command -v node)
cp "$node" "$scratch/root/usr/local/bin/node"
npm install --global --prefix "$scratch/root/usr/local" --loglevel=error --no-audit --no-fund npm@11 >&2
image localhost/btfmill-node "$scratch/root"
