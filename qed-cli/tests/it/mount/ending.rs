//! How a mount begins and ends.

use super::on_fuse;

#[test]
fn a_signal_unmounts_flushes_and_closes() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 1M
           for signal in TERM INT; do
               start disk.qed m; echo $signal | dd of=m/disk conv=notrunc status=none
               kill -$signal $server; wait $server; ! mountpoint -q m
               qemu-img convert -f qed -O raw disk.qed raw; head -1 raw | grep -q $signal
           done"#,
    );
}

// spec-test: QED-HAND-03
#[test]
fn a_disk_that_comes_back_is_not_read_from_what_the_kernel_kept() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 1M; start --control c disk.qed m
           ask() {
               /usr/bin/python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect("c"); s.sendall(sys.argv[1].encode())
s.shutdown(socket.SHUT_WR); print(s.makefile().readline())' "{\"cmd\":\"$1\"}
" | grep -q '"ok":true'
           }
           echo old | dd of=$file conv=notrunc status=none; test "$(head -c 3 $file)" = old
           ask deactivate; qemu-io -f qed -c 'write -q -P 65 0 512' disk.qed; ask activate
           test "$(head -c 3 $file)" = AAA; finish"#,
    );
}

#[test]
fn a_file_in_use_is_out_of_sight_and_closed_in_time() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 1M
           # Whoever has it open goes on until it is closed,
           start --drain 600 disk.qed m; exec 7<>m/disk; kill -TERM $server
           while mountpoint -q m; do :; done
           echo used >&7; exec 7<&-; wait $server
           qemu-img convert -f qed -O raw disk.qed raw; head -1 raw | grep -q used
           # or until the time is up.
           start --drain 0 disk.qed m; exec 7<>m/disk; kill -TERM $server; wait $server
           ! mountpoint -q m; ! echo late >&7; exec 7<&- || true
           "$qed" check disk.qed"#,
    );
}

#[test]
fn a_mount_over_a_mount_takes_away_only_itself() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 1M; mount -t tmpfs below m; touch m/below
           start disk.qed m; finish; test -e m/below
           start disk.qed m; kill $server; wait $server; test -e m/below
           # What others mount at the same place stays.
           start --drain 0 disk.qed m; mount -t tmpfs above m; touch m/above; kill $server; wait $server
           test -e m/above; umount m; umount -l m; test -e m/below"#,
    );
}

#[test]
fn in_the_background_the_caller_returns_when_the_disk_can_be_used() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 1M
           # It ends although the server lives: it has let go of its outputs.
           said=$("$qed" mount --background -- disk.qed m 2>&1); test "$said" = $PWD/m/disk
           dd if=m/disk of=/dev/null status=none
           code=0; "$qed" mount --background disk.qed mnt 2> error || code=$?
           test $code = 1; grep -q 'Failed to get .* lock' error
           code=0; "$qed" mount --background missing.qed mnt 2> error || code=$?
           test $code = 1; grep -q 'No such file' error
           umount m
           # The image is free when the server has ended.
           until "$qed" check -q disk.qed 2>&-; do :; done"#,
    );
}

#[test]
fn a_killed_server_leaves_a_mount_that_says_so_and_the_image_recovers() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 16M; start disk.qed m
           head -c 5M /dev/urandom > model
           # Acknowledged, and not flushed.
           dd if=model of=m/disk bs=64k conv=notrunc status=none
           kill -9 $server; wait $server || true
           ! stat m/disk 2> said; grep -q 'Transport endpoint is not connected' said
           code=0; "$qed" mount disk.qed m 2> said || code=$?
           test $code = 1; grep -q 'whose server has died.*umount -l' said
           umount -l m
           start disk.qed m; cmp -n $((5 << 20)) m/disk model; finish
           "$qed" check disk.qed"#,
    );
}

#[test]
fn without_fuse_or_a_place_it_says_so() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 1M
           fails() { code=0; "$qed" mount disk.qed "$1" 2> said || code=$?; test $code = 1; cat said >&2
                     grep -q "$2" said; }
           fails missing 'missing.*No such file'
           fails /dev/null 'neither a file nor a folder'
           unshare -m sh -c "mount -t tmpfs none /dev; \"$qed\" mount disk.qed m" 2> said && exit 1
           cat said >&2; grep -q 'no FUSE here' said
           code=0; "$qed" mount disk.qed 2> said || code=$?; test $code = 1
           grep -q 'Expecting an image file name and a mount point' said"#,
    );
}
