//! A loop device on the file, and a file system on it.

use super::on_fuse;

#[test]
fn an_image_shrinks_to_what_a_trimmed_file_system_uses() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 512M; start --discard pass-down disk.qed m
           device=$(losetup --find --show $file); mkfs.ext4 -q -m 0 $device; mount $device mnt
           # Filled to its end.
           head -c 4M /dev/urandom > source
           for i in {100..999}; do cp source mnt/$i 2>&- || break; done
           sync -f mnt; filled=$(stat -c %b disk.qed); test $filled -gt $((450 << 11))
           rm mnt/*[1-9]; head -c 3M /dev/urandom > mnt/kept; sum=$(sha256sum < mnt/kept)
           sync -f mnt; fstrim mnt; used=$(($(df --output=used -B512 mnt | tail -1)))
           test "$(sha256sum < mnt/kept)" = "$sum"
           umount mnt; e2fsck -fn $device >&2
           used=$(dumpe2fs -h $device 2>&- | awk -F: '/^Block count/ {b=$2} /^Free blocks/ {f=$2}
                                                     /^Block size/ {s=$2} END {print (b-f)*s/512}')
           losetup -d $device; device=; finish
           kept=$(stat -c %b disk.qed); echo "filled $filled, used $used, kept $kept sectors" >&2
           test $kept -le $((used * 105 / 100)); "$qed" check disk.qed"#,
    );
}

#[test]
fn a_part_of_a_disk_is_a_device_of_its_own() {
    on_fuse(
        r#""$qed" create -q -f qed disk.qed 32M; start disk.qed m
           device=$(losetup --find --show --offset 1M --sizelimit 16M --direct-io=on $file)
           mkfs.ext4 -q $device; mount $device mnt; echo hello > mnt/greeting; umount mnt
           losetup -d $device; device=; finish
           "$qed" convert -O raw disk.qed raw; cmp -n $((1 << 20)) raw /dev/zero
           device=$(losetup --find --show --read-only --offset 1M --sizelimit 16M raw)
           mount -o ro $device mnt; test "$(cat mnt/greeting)" = hello; umount mnt"#,
    );
}
