# The guest's scripts source this file.

# Runs a command as a child of this shell. The child's execve() waits until this shell sleeps, so the agent's program sees
# the parent in the same state each time.
start() {
  read -r me _ </proc/self/stat # in a subshell, $$ names the outer shell
  (
    until asleep "$me"; do :; done
    exec "$@"
  )
  : # without this, the shell would exec the last subshell in its own process, not as a child
}

asleep() {
  read -r _ _ state _ <"/proc/$1/stat"
  [ "$state" = S ]
}
