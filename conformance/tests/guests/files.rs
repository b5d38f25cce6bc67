//! A file system in a guest: made, filled, trimmed, and the same after a reboot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::lab::Lab;
use crate::machine::{Machine, Plan};
use crate::server::{Server, Way};

const DISK_LEN: u64 = 1 << 30;
/// What is written and deleted, in MiB.
const DELETED_MIB: u64 = 48;

/// The first boot makes the file system, the second looks at it.
const JOB: &str = "
if mount -t ext4 /dev/vda /disk 2>/dev/null; then
    (cd /disk && sha256sum -s -c sums) && say kept
    umount /disk
    /programs/e2fsck -fn /dev/vda >/dev/null && say sound
else
    /programs/mke2fs -q -t ext4 -E lazy_itable_init=0 /dev/vda
    mount -t ext4 /dev/vda /disk
    cd /disk
    for name in a b c d; do
        dd if=/dev/urandom of=$name bs=64k count=20 conv=fsync 2>/dev/null
        cat /bin/busybox >>$name
    done
    sha256sum a b c d >sums
    dd if=/dev/urandom of=deleted bs=1M count=DELETED conv=fsync 2>/dev/null
    say filled
    rm deleted
    sync
    fstrim /disk
    sync
    say trimmed
    cd /
    umount /disk
    reboot -f
fi
";

fn make_fill_trim_and_reboot(way: Way, options: &str) {
    let Some(lab) = Lab::new(options, DISK_LEN) else { return };
    let server = Server::start(&lab, way, "s", &[]);
    let plan = Plan {
        job: JOB.replace("DELETED", &DELETED_MIB.to_string()),
        programs: ["mke2fs", "e2fsck"].map(|name| Path::new("/sbin").join(name)).to_vec(),
        disk: way.disk(&lab, "s"),
        reboots: true,
    };
    let guest = Machine::start(&lab, "a", &plan, &[]);
    let stored = || fs::metadata(lab.path("disk.qed")).unwrap().blocks() * 512;
    assert_eq!(guest.line(), "filled");
    let filled = stored();
    assert_eq!(guest.line(), "trimmed");
    let trimmed = stored();
    assert!(trimmed + (DELETED_MIB << 20) * 9 / 10 < filled, "{filled} bytes, then {trimmed}");
    assert_eq!(guest.ended(), ["kept", "sound"]);
    server.stop();
    drop(lab.checked_disk());
}

#[test]
fn a_file_system_over_nbd_is_there_after_a_reboot() {
    make_fill_trim_and_reboot(Way::Nbd, "journal=off");
}

#[test]
fn a_file_system_over_vhost_user_is_there_after_a_reboot() {
    make_fill_trim_and_reboot(Way::Vhost, "journal=on");
}
