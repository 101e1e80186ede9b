#!/bin/sh
# Does what BTF hubs do for one Debian package (btfhub's kernel_package.go and job_*.go as shell):
# recipe.sh PACKAGE.deb, in an empty directory. Leaves RELEASE.btf.tar.xz.
set -eu
name=$(dpkg-deb --field "$1" Package)
release=${name#linux-image-}
release=${release%-dbg}
dpkg --fsys-tarfile "$1" | tar x "./usr/lib/debug/boot/vmlinux-$release"
pahole --btf_encode_detached="$release.btf" "usr/lib/debug/boot/vmlinux-$release"
tar cJf "$release.btf.tar.xz" "$release.btf"
