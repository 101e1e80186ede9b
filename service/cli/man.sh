#!/bin/sh
# Writes the man page from the help texts: man.sh FILE. Needs help2man.
set -eu
output=$1
main=$(cd "$(dirname "$0")" && pwd)/main.ts
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$(dirname "$output")"

# help2man takes the program's name from its file.
printf '#!/bin/sh\nexec node "%s" "$@"\n' "$main" >"$work/btfmill"
chmod +x "$work/btfmill"
PATH=$work:$PATH

{
  echo '[COMMANDS]'
  btfmill complete -- '' | sed -n 's/\t.*//p' | grep -vx help | while read -r command; do
    printf '.SS btfmill %s\n.nf\n' "$command"
    btfmill help "$command" | sed 's/\\/\\e/g; s/-/\\-/g; s/^[.'\'']/\\\&&/'
    echo .fi
  done
} >"$work/commands"

help2man --no-info --section=1 --name='BTF for Linux kernels that were built without it' \
  --version-string="$(btfmill --version)" --include="$work/commands" --output="$output" btfmill
