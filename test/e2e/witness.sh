#!/bin/sh
# Says of itself what the agent should say of it, then runs its arguments as a child. In the guest it has two names.
. /bin/start.sh

describe() { # the fields of /proc/PID/stat of the parent
  echo "[$run] shell: pid=$$ comm=$comm parent=$PPID state=$3 cpu=${39}"
}

read -r comm <"/proc/$$/comm"
read -r parent <"/proc/$PPID/stat"
# shellcheck disable=SC2086 # a list of words
describe $parent
[ $# = 0 ] || start "$@"
