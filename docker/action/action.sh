#!/bin/sh
# The steps of the GitHub Action, which action.yml describes: install, check, bundle, decide. The inputs are the variables
# INPUT_…; lists have one value per line. Where GITHUB_OUTPUT or GITHUB_STEP_SUMMARY is unset, nothing is written to it.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
newline='
'

btfmill() {
  "$root/node_modules/.bin/node" --max-semi-space-size=8 "$root/service/cli/main.ts" "$@"
}

fail() {
  echo "::error::$1"
  exit 1
}

output() { # output NAME VALUE
  case $2 in *"$newline"*) fail "invalid $1: expected one line" ;; esac
  printf '%s=%s\n' "$1" "$2" >>"${GITHUB_OUTPUT:-/dev/null}"
}

# Runs "btfmill COMMAND OPTION… FILTER… OBJECT…". The objects follow `--`, or each follows an option of its own.
with_inputs() { # with_inputs '--' | '--object' COMMAND OPTION…
  before=$1
  shift
  [ -n "${INPUT_SERVER:-}${INPUT_STORE:-}" ] || fail 'no kernels: expected the input server or store'
  [ -z "${INPUT_SERVER:-}" ] || set -- "$@" --server "$INPUT_SERVER"
  [ -z "${INPUT_STORE:-}" ] || set -- "$@" --store "$INPUT_STORE"
  IFS=$newline
  set -f
  for value in ${INPUT_DISTRO:-}; do set -- "$@" --distro "$value"; done
  for value in ${INPUT_DISTRO_VERSION:-}; do set -- "$@" --distro-version "$value"; done
  for value in ${INPUT_ARCH:-}; do set -- "$@" --arch "$value"; done
  for value in ${INPUT_RELEASE:-}; do set -- "$@" --release "$value"; done
  set +f # objects may be globs
  if [ "$before" = -- ]; then
    set -- "$@" --
    for value in $INPUT_OBJECTS; do set -- "$@" "$value"; done
  else
    for value in $INPUT_OBJECTS; do set -- "$@" "$before" "$value"; done
  fi
  unset IFS
  btfmill "$@"
}

install() {
  [ -e "$root/node_modules/.bin/node" ] || (cd "$root" && npm ci --omit=dev --loglevel=error)
}

check() {
  case $INPUT_REPORT in
    sarif) report=$INPUT_OUTPUT/check.sarif ;;
    junit) report=$INPUT_OUTPUT/check.xml ;;
    *) fail 'invalid report: expected sarif or junit' ;;
  esac
  case $INPUT_FAIL_ON in
    no | cannot-tell | never) ;;
    *) fail 'invalid fail-on: expected no, cannot-tell or never' ;;
  esac
  json=$INPUT_OUTPUT/check.ndjson text=$INPUT_OUTPUT/check.txt
  mkdir -p -- "$INPUT_OUTPUT"
  rm -f -- "$json" "$report" "$text"
  set -- check --format github --report "json:$json" --report "$INPUT_REPORT:$report" --report "text:$text"
  [ -z "${INPUT_BASELINE:-}" ] || set -- "$@" --baseline "$INPUT_BASELINE"
  status=0
  with_inputs -- "$@" || status=$?
  # without reports nothing was checked: the status is that of an error
  [ -s "$text" ] || exit "$status"
  case ${INPUT_BASELINE:+baseline}:$status in
    :0) result=yes ;;
    :3) result=cannot_tell ;;
    :*) result=no ;;
    baseline:0) result=kept ;;
    *) result=lost ;;
  esac
  output result "$result"
  output report "$report"
  output json "$json"
  # indented lines are code in Markdown; a summary has at most 1 MiB
  { echo '## btfmill check' && echo && head -c 500000 "$text" | sed 's/^/    /'; } >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
}

bundle() {
  case $INPUT_BUNDLE in
    tree) file=btfs.tar.xz ;;
    btfhub) file=btfhub.tar ;;
    bcc) file=min_core_btfs.tar.gz ;;
    inspektor-gadget) file=btfs.tar.gz ;;
    datadog) file=minimized-btfs.tar.xz ;;
    *) fail 'invalid bundle: expected tree, btfhub, bcc, inspektor-gadget or datadog' ;;
  esac
  mkdir -p -- "$INPUT_OUTPUT"
  with_inputs --object export --profile "$INPUT_BUNDLE" --unsupported "$INPUT_UNSUPPORTED" --output "$INPUT_OUTPUT/$file"
  output bundle "$INPUT_OUTPUT/$file"
}

decide() {
  case $INPUT_FAIL_ON:$INPUT_RESULT in
    never:*) ;;
    *:no) fail 'an object does not work on some kernels' ;;
    *:lost) fail 'an object no longer works on some kernels' ;;
    cannot-tell:cannot_tell) fail 'for some kernels it cannot be told whether an object works' ;;
  esac
}

case ${1:-} in
  install | check | bundle | decide) "$1" ;;
  *)
    echo 'usage: action.sh install|check|bundle|decide' >&2
    exit 2
    ;;
esac
