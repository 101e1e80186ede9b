#!/bin/sh
# Does what the hubs' btfgen.sh and its copies do: btfgen.sh TREE OBJECT OUT.tar.gz, in an empty directory. TREE has the
# layout of btfhub-archive.
set -eu
tree=$1 object=$2 out=$3
find "$tree" -name '*.btf.tar.xz' | while read -r archive; do
  directory=${archive#"$tree"/}
  directory=${directory%/*}
  release=$(basename "$archive" .btf.tar.xz)
  tar xJf "$archive"
  mkdir -p "out/$directory"
  bpftool gen min_core_btf "$release.btf" "out/$directory/$release.btf" "$object"
  rm "$release.btf"
done
tar czf "$out" -C out .
