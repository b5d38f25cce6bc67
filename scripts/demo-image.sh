#!/usr/bin/env bash
# Makes docs/demo/ext4.qcow2, the disk of ./demo, and its digests anew: a small ext4 file system in a
# compressed QCOW2 image. Made by other programs throughout, so that the demo proves something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

# The image may not grow past this: it lies in the history for good.
readonly LEN_MAX=$((2 << 20))

# The files of the disk: text, noise that does not compress, a hole and a link.
write_content() {
    local letter
    mkdir -p "$1/letters"
    echo 'A disk of the QED demo. Every byte of it has a digest.' >"$1/README"
    for letter in a b c d e f; do
        awk -v letter="$letter" 'BEGIN { for (i = 0; i < 20000; i++) print letter }' >"$1/letters/$letter.txt"
    done
    seq 0 49999 >"$1/numbers.txt"
    seq 0 399999 | gzip --no-name --best >"$1/packed.gz"
    truncate --size 512K "$1/packed.gz"
    truncate --size 8M "$1/sparse.bin"
    echo 'the end' >>"$1/sparse.bin"
    ln -s letters/a.txt "$1/link"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
write_content "$work/content"
truncate --size 64M "$work/ext4.raw"
mke2fs -q -t ext4 -L qed-demo -U 71ed71ed-0000-4000-8000-000000000001 \
    -E root_owner=0:0,hash_seed=71ed71ed-0000-4000-8000-000000000002 -d "$work/content" "$work/ext4.raw"
e2fsck -fn "$work/ext4.raw"
qemu-img convert -c -m 1 -f raw -O qcow2 "$work/ext4.raw" "$work/ext4.qcow2"
qemu-img check -q -f qcow2 "$work/ext4.qcow2"

len=$(stat --format %s "$work/ext4.qcow2")
[[ $len -lt $LEN_MAX ]] || {
    echo "the image has $len bytes, $LEN_MAX is its limit" >&2
    exit 1
}
cp "$work/ext4.qcow2" docs/demo/ext4.qcow2
(cd "$work" && sha256sum ext4.qcow2 ext4.raw) >docs/demo/SHA256SUMS
echo "docs/demo/ext4.qcow2: $len bytes"
