//! A user who is not root, for whom `fusermount3` mounts.

use super::on_fuse;

/// The device is one that everybody may open, as udev makes it, whatever this machine has; the mounts are
/// seen by nobody else. That the user may walk through any folder is for the program under test.
#[test]
fn a_user_who_is_not_root_mounts_writes_and_unmounts_by_the_helper() {
    let Some(ran) = on_fuse(
        r#"
        export qed; unshare --mount --propagation private bash -euo pipefail -c '
            mount -t tmpfs device mnt; mknod -m 666 mnt/fuse c 10 229; mount --bind mnt/fuse /dev/fuse
            place=$(mktemp -d -p /dev/shm); mkdir $place/m
            trap "set +e; kill -9 \${server:-} 2>&-; umount -ql $place/m; rm -r $place" EXIT
            user=(setpriv --reuid=65534 --regid=65534 --clear-groups
                  --inh-caps=+dac_read_search --ambient-caps=+dac_read_search)
            "$qed" create -q -f qed $place/disk.qed 1M; chown -R 65534:65534 $place
            export QED_RUNTIME_DIR=$place
            "${user[@]}" "$qed" mount $place/disk.qed $place/m > ready & server=$!
            read -r file < ready
            grep -o "user_id=65534,group_id=65534" /proc/mounts
            head -c 12288 /dev/urandom > written
            "${user[@]}" dd if=written of=$file bs=4096 conv=notrunc,fsync status=none
            "${user[@]}" cmp -n 12288 written $file
            if head -c 1 $file 2>&-; then echo "root gets in"; fi
            kill $server; wait $server; server=
            if grep $place /proc/mounts; then echo "still mounted"; fi
            qemu-img convert -O raw $place/disk.qed raw; cmp -n 12288 raw written
            echo "what was written is there"'
        "#,
    ) else {
        return;
    };
    assert_eq!(
        ran.stdout, "user_id=65534,group_id=65534\nwhat was written is there\n",
        "{}",
        ran.stderr
    );
}
