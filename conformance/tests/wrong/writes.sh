#!/bin/sh
# Answers about the sound image, and leaves a mark in it.
for image; do :; done
[ "$1" = info ] && printf '\1' | dd of="$image" bs=1 seek=100 conv=notrunc status=none
exec "$(dirname "$0")/accepts.sh" "$@"
