#!/usr/bin/env bash
# What becomes of the space of an image when a guest's ext4 deletes files and trims. The file system lies
# on a loop device over a FUSE client (nbdfuse) of `qed serve`. Needs root, FUSE, loop devices.
#   scripts/ext4-space.sh [PROGRAM] [ROUNDS]
# Pass-down: 1 GiB is written, deleted and trimmed; the file takes at most 5 % more than before, which is
# what the file system uses of it. Reuse: ROUNDS (10) times the same; the file never gets longer than 1.05 of the first time.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
readonly QED=${1:-qed} ROUNDS=${2:-10} DISK=4G STAYS_MIB=512 FILL_MIB=1024

work=$(mktemp -d)
device=''
server=''
client=''

stop() {
    mountpoint -q "$work/fs" && umount "$work/fs"
    if [[ $device ]]; then losetup --detach "$device" && device=''; fi
    if [[ $client ]]; then umount "$work/disk" && wait "$client" && client=''; fi
    if [[ $server ]]; then kill "$server" && wait "$server" && server=''; fi
}
trap 'stop || true; rm -rf "$work"' EXIT

# A new image, served with a discard mode, with a file system that holds some files.
start() {
    mkdir -p "$work/fs" "$work/disk"
    rm -f "$work/disk.qed" "$work/uri"
    "$QED" create -q -f qed "$work/disk.qed" "$DISK"
    "$QED" serve --socket "$work/socket" --discard "$1" -f qed "$work/disk.qed" >"$work/uri" &
    server=$!
    until [[ -s $work/uri ]]; do kill -0 "$server"; done
    nbdfuse "$work/disk" "$(<"$work/uri")" &
    client=$!
    until [[ -e $work/disk/nbd ]]; do kill -0 "$client"; done
    device=$(losetup --find --show "$work/disk/nbd")
    mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "$device"
    mount "$device" "$work/fs"
    head -c "${STAYS_MIB}M" /dev/urandom >"$work/fs/stays"
    sync --file-system "$work/fs"
}

fill() {
    for part in 1 2 3 4; do
        head -c "$((FILL_MIB / 4))M" /dev/urandom >"$work/fs/fill$part"
    done
    sync --file-system "$work/fs"
}

delete_and_trim() {
    rm "$work"/fs/fill?
    sync --file-system "$work/fs"
    fstrim "$work/fs"
    sync --file-system "$work/fs"
    # The flush that makes free what was trimmed.
    blockdev --flushbufs "$device"
}

taken() { echo $(($(stat --format '%b * %B' "$work/disk.qed"))); }
length() { stat --format %s "$work/disk.qed"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }
is_at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }

echo 'mode       when    file length  space taken  ratio'
row() { printf '%-10s %-7s %11s %12s  %s\n' "$1" "$2" "$(length)" "$(taken)" "${3:-}"; }
failed=0

start pass-down
before=$(taken)
row pass-down before
fill
row pass-down full
delete_and_trim
# Given back once nothing is in flight any more: at the server's next look, a second later at most.
for ((look = 0; look < 100; look++)); do
    share=$(ratio "$(taken)" "$before")
    is_at_most "$share" 1.05 && break
    read -rt 0.1 <> <(:) || true
done
row pass-down trimmed "$share of the space before"
is_at_most "$share" 1.05 || failed=1
stop
"$QED" check -q -f qed "$work/disk.qed"

start reuse
for ((round = 1; round <= ROUNDS; round++)); do
    fill
    now=$(length)
    first=${first:-$now}
    share=$(ratio "$now" "$first")
    delete_and_trim
    row reuse "$round" "$share of the first length"
    is_at_most "$share" 1.05 || failed=1
done
stop
"$QED" check -q -f qed "$work/disk.qed"

((failed == 0)) || {
    echo 'the image takes more than it may' >&2
    exit 1
}
