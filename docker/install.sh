#!/bin/sh
# Installs the Debian packages of packages.txt, then the npm packages of package-lock.json. Does nothing, quietly, where
# nothing is missing. Usage: docker/install.sh [GROUP…]; without a group, it installs all groups. In an image, where
# package-lock.json is absent, it installs the Debian packages only.
set -eu
cd "$(dirname "$0")/.."

wanted() { # prints the packages of the given groups, or of all groups
  awk -v groups=" $* " '
    /^#/ || NF < 2 { next }
    { wanted = groups == "  "; for (i = 2; i <= NF; i++) if (index(groups, " " $i " ")) wanted = 1; if (wanted) print $1 }
  ' docker/packages.txt
}

missing=
for package in $(wanted "$@"); do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
  install="apt-get install -y --no-install-recommends$missing"
  if [ "$(id -u)" = 0 ]; then sudo=
  elif sudo -n true 2>/dev/null; then sudo='sudo -n'
  else
    echo "btfmill needs Debian packages that are not installed. Run this, then try again:" >&2
    echo "  sudo $install" >&2
    exit 1
  fi
  echo "installing:$missing" >&2
  $sudo apt-get update -qq
  # shellcheck disable=SC2086 # a list of words
  DEBIAN_FRONTEND=noninteractive $sudo $install >&2
fi

[ -e package-lock.json ] || exit 0

# npm writes node_modules/.package-lock.json last, so that file is newer than package-lock.json if they agree.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "installing: npm packages" >&2
  npm ci --loglevel=error >&2
fi
