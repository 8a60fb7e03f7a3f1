#!/bin/sh
# Makes an image with an ext4 of its own, and mounts it: a disk that can be frozen and filled. Needs root.
#
#   scripts/mount-image.sh IMAGE MEGABYTES DIRECTORY
set -eu
truncate -s "${2}M" "$1"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$1"
# Past the page cache of the file system below, as a disk of its own would be. The loop device ends with the mount.
loop=$(losetup --direct-io=on --find --show "$1")
trap 'losetup -d "$loop"' EXIT
mount "$loop" "$3"
