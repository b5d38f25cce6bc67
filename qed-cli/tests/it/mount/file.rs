//! What programs do with the file.

use super::on_fuse;

#[test]
fn a_mounted_disk_is_what_qemu_converts_it_to() {
    // In the place of a file and in a folder, each format, and over a backing file.
    on_fuse(
        r#"qemu-img create -q -f raw base.raw 5M
           qemu-io -f raw -c 'write -q -P 5 1000k 3M' base.raw
           qemu-img create -q -f qed -F raw -b base.raw over.qed 6M
           qemu-io -f qed -c 'write -q -P 7 3M 100k' over.qed
           qemu-img convert -f qed -O qcow2 -c over.qed c.qcow2
           qemu-img convert -f qed -O raw over.qed disk.raw
           touch place
           for image in over.qed c.qcow2 disk.raw; do
               start -r -f ${image##*.} $image m; cmp $file disk.raw; test $file = $PWD/m/disk
               test "$(ls -A m)" = disk; finish
               start -r -f ${image##*.} $image place; cmp place disk.raw; test $file = $PWD/place
               test $(stat -c %s place) = $((6 << 20)); finish place
               test $(stat -c %s place) = 0
           done"#,
    );
}

#[test]
fn what_is_written_is_what_qemu_reads() {
    on_fuse(
        r#"qemu-img create -q -f qed disk.qed 16M; truncate -s 16M model; start disk.qed m
           head -c 8M /dev/urandom > source
           put() { for out in model m/disk; do
                       dd if=source of=$out bs=$1 skip=$2 seek=$3 count=$4 conv=notrunc status=none "${@:5}"
                   done; }
           put 1 5 1000 3000; put 4k 1 100 17 conv=fsync; put 1M 0 3 5; put 511 3 7 1000
           put 64k 2 200 8 oflag=direct; put 4k 9 1000 3 oflag=dsync
           python3 -c 'import mmap, os
for name in ("model", "m/disk"):
    with open(name, "r+b") as file:
        with mmap.mmap(file.fileno(), 0) as bytes:
            bytes[70000:70010] = b"0123456789"
            bytes.flush()'
           cmp m/disk model; dd if=m/disk bs=1M iflag=direct status=none | cmp - model
           finish
           qemu-img check -q disk.qed; qemu-img convert -f qed -O raw disk.qed out; cmp out model"#,
    );
}

#[test]
fn holes_are_punched_at_any_alignment_and_give_up_their_space() {
    on_fuse(
        r#"head -c 8M /dev/urandom > model; "$qed" convert -f raw -O qed model disk.qed
           start --discard pass-down disk.qed m
           while read -r flags at len; do
               for out in model m/disk; do fallocate $flags -o $at -l $len $out; done
           done <<'LIST'
-pn 1000 5
-pn 65535 2
-pn 100001 700001
-pn 1048576 1048576
-zn 3000001 65537
-pn 8388000 4096
-n 2000000 300000
LIST
           cmp m/disk model
           test $(stat -c %b m/disk) -lt $((8 << 11))
           # 1 MiB and the clusters inside of 700001 bytes, once the tables have been swept.
           sync m/disk; most=$(((8 << 11) - (1 << 11) - 9 * 128 + 1024))
           timeout 60 bash -c "until test \$(stat -c %b disk.qed) -le $most; do :; done"
           finish
           "$qed" check disk.qed; qemu-img compare -q -f qed -F raw disk.qed model
           "$qed" map --output=json disk.qed | grep -q '"zero": true'"#,
    );
}

#[test]
fn a_search_for_data_and_holes_finds_what_map_shows() {
    on_fuse(
        r#"qemu-img create -q -f qed disk.qed 64M
           qemu-io -f qed -c 'write -q 100k 10k' -c 'write -q 5M 1M' -c 'write -q 7M 1M' \
               -c 'write -q 63M 1M' disk.qed
           start -r disk.qed m
           python3 -c 'import os
file, at, runs = os.open("m/disk", os.O_RDONLY), 0, []
while True:
    try: data = os.lseek(file, at, os.SEEK_DATA)
    except OSError: break
    at = os.lseek(file, data, os.SEEK_HOLE)
    runs.append((data, at))
print(runs)' > seen
           finish
           "$qed" map --output=json disk.qed | python3 -c 'import json, sys
runs = []
for run in json.load(sys.stdin):
    start, end = run["start"], run["start"] + run["length"]
    if run["zero"]: continue
    if runs and runs[-1][1] == start: runs[-1] = (runs[-1][0], end)
    else: runs.append((start, end))
print(runs)' > mapped
           cmp seen mapped; test $(tr -cd '(' < seen | wc -c) = 4
           # Tools that look for holes do so.
           start -r disk.qed m; cp --sparse=auto m/disk copy; cmp copy m/disk
           test $(stat -c %b copy) -le $(((4 << 11) + 512)); finish"#,
    );
}

#[test]
fn what_cannot_be_written_says_why() {
    let ran = on_fuse(
        r#"qemu-img create -q -f qed disk.qed 1M; start -r disk.qed m
           say() { { "$@" 2>&1 || true; } | sed 's/.*: //'; }
           say dd if=/dev/zero of=m/disk count=1 conv=notrunc status=none
           finish; start disk.qed m
           say dd if=/dev/zero of=m/disk seek=1 bs=1M count=1 conv=notrunc status=none
           say truncate -s 2M m/disk
           say truncate -s 0 m/disk
           say touch m/other
           say rm m/disk
           say mkdir m/folder
           say mv m/disk m/other
           say fallocate -c -o 0 -l 64k m/disk
           cmp -n $((1 << 20)) m/disk /dev/zero; finish"#,
    );
    let Some(ran) = ran else { return };
    let said: Vec<_> = ran.stdout.lines().filter(|line| !line.is_empty()).collect();
    let [no, read_only, full] =
        ["Operation not permitted", "Read-only file system", "No space left on device"];
    let unsupported = "Operation not supported";
    assert_eq!(said, [read_only, full, no, no, no, no, no, no, unsupported], "{}", ran.stderr);
}

#[test]
fn a_growable_disk_grows_and_does_not_shrink() {
    on_fuse(
        r#"qemu-img create -q -f qed disk.qed 1M; start --growable disk.qed m
           truncate -s 3M m/disk; test $(stat -c %s m/disk) = $((3 << 20))
           ! truncate -s 1M m/disk 2> said; grep -q 'not permitted' said
           echo end | dd of=m/disk bs=1 seek=4M conv=notrunc status=none
           test $(stat -c %s m/disk) = $(((4 << 20) + 512))
           fallocate -o 5M -l 1M m/disk; test $(stat -c %s m/disk) = $((6 << 20))
           finish
           qemu-img info disk.qed | grep -q '6 MiB (6291456 bytes)'; qemu-img check -q disk.qed
           qemu-io -f qed -c 'read -qP 0 1M 3M' -c 'read -qP 0 5M 1M' disk.qed"#,
    );
}

#[test]
fn a_full_file_system_fails_writes_and_nothing_else() {
    on_fuse(
        r#"mkdir full; mount -t tmpfs -o size=4M full full
           "$qed" create -q -f qed full/disk.qed 64M; head -c 1M /dev/zero > full/other
           start full/disk.qed m
           ! dd if=/dev/urandom of=m/disk bs=64k conv=notrunc status=none 2> said
           grep -q 'No space left on device' said
           # With room for tables what is there can be written, and what is given up is used again.
           rm full/other
           dd if=/dev/urandom of=model bs=64k count=8 status=none
           dd if=model of=m/disk bs=64k conv=notrunc,fsync status=none; cmp -n 524288 m/disk model
           fallocate -pn -o 1M -l 1M m/disk
           dd if=model of=m/disk bs=64k seek=100 conv=notrunc,fsync status=none
           cmp -n 524288 -i $((100 << 16)):0 m/disk model
           finish; "$qed" check full/disk.qed
           # Free space is a leak to QEMU.
           qemu-img check -q full/disk.qed || test $? = 3"#,
    );
}

#[test]
fn many_writers_find_what_they_wrote() {
    on_fuse(
        r#"command -v fio > /dev/null || { echo 'fio is missing: install the package fio' >&2; exit 1; }
           "$qed" create -q -f qed disk.qed 64M; start disk.qed m
           jobs="--filename=m/disk --verify=crc32c --verify_fatal=1 --group_reporting --minimal
                 --size=8M --offset_increment=8M --numjobs=4 --thread"
           fio --name=a $jobs --rw=randrw --bsrange=512-128k --bs_unaligned --ioengine=psync > said
           fio --name=b $jobs --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 > said
           sha256sum < m/disk > before
           finish; start -r -t none disk.qed m; sha256sum < m/disk | cmp - before; finish
           qemu-img check -q disk.qed"#,
    );
}
