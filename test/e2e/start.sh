# Sourced by the scripts of the guest.

# Runs a command as a child of this shell, and its execve() only once this shell has fallen asleep waiting for it: so
# what the agent's program sees of the parent at that moment is the same each time.
start() {
  read -r me _ </proc/self/stat # $$ is another process in a subshell
  (
    until asleep "$me"; do :; done
    exec "$@"
  )
  : # else the subshell above, as the last thing here, would be no child
}

asleep() {
  read -r _ _ state _ <"/proc/$1/stat"
  [ "$state" = S ]
}
