#!/bin/sh
# Makes a checkout ready: the Debian packages of packages.txt, then the npm packages of package-lock.json.
# Quick and quiet where nothing is missing. Usage: docker/install.sh [GROUP…], without groups all of them. In an image,
# where there is no package-lock.json beside it, only the Debian packages.
set -eu
cd "$(dirname "$0")/.."

wanted() { # the packages of the groups named, or of all
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

# npm writes node_modules/.package-lock.json last, so it is newer than the lock file exactly when they agree.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "installing: npm packages" >&2
  npm ci --loglevel=error >&2
fi

# Every install of npm's, also one that somebody did by hand, resets the plugins of .taprc.
if [ -d node_modules/tap ] && [ ! node_modules/.tap-built -nt node_modules/.package-lock.json ]; then
  npm exec --loglevel=error -- tap build >&2
  touch node_modules/.tap-built
fi
