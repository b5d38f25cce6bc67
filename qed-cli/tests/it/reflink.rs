//! Conversion on file systems that share blocks: what is shared takes no space, and reads the same.

use crate::lab::Lab;

/// Runs `script` in a folder on a fresh file system made by `mkfs`, 512 MiB of it. `new FILE` is the
/// space in KiB that FILE does not share; `used` what the file system has in use. Nothing is run, and
/// that is recorded, without root.
fn on_shared(test: &str, mkfs: &str, script: &str) {
    let lab = Lab::new();
    let qed = env!("CARGO_BIN_EXE_qed");
    lab.shell(&format!(
        "if [ $(id -u) != 0 ] && [ -n \"$QED_SKIPPED\" ]; then
             echo {test}: needs root and loop devices >> $QED_SKIPPED
             exit
         fi
         set -e
         PATH=$PATH:/usr/sbin:/sbin
         type {mkfs} > /dev/null || {{ echo install the Debian package of {mkfs}; exit 1; }}
         truncate -s 512M disk; {mkfs} -q disk; mkdir fs; mount -o loop disk fs
         trap 'cd ..; umount fs' EXIT
         cd fs
         qed() {{ {qed} \"$@\"; }}
         used() {{ sync -f .; df --output=used -k . | tail -1; }}
         # at_most KIB CALL: the call succeeds and takes no more space than that.
         at_most() {{
             local most=$1 before after; shift; before=$(used); qed \"$@\"; after=$(used)
             [ $((after - before)) -le $most ] || {{ echo \"$((after - before)) KiB: $*\"; exit 1; }}
         }}
         same() {{ qemu-img compare -q -f $1 -F $3 $2 $4 || {{ echo \"$2 and $4 differ\"; exit 1; }}; }}
         {script}"
    ));
}

const KINDS: [(&str, &str); 2] = [("xfsprogs", "mkfs.xfs"), ("btrfs-progs", "mkfs.btrfs")];

#[test]
fn formats_share_their_data_with_each_other() {
    for (_, mkfs) in KINDS {
        on_shared(
            "formats_share_their_data_with_each_other",
            mkfs,
            "head -c 48M /dev/urandom > a.raw; truncate -s 64M a.raw
             qemu-img convert -f raw -O qed a.raw a.qed
             qemu-img convert -f raw -O qcow2 a.raw a.qcow2
             for from in raw qed qcow2; do for to in raw qed qcow2; do
                 at_most 4096 convert -f $from -O $to a.$from out.$to
                 same $from a.$from $to out.$to
                 [ $to = raw ] || qemu-img check -q -f $to out.$to
                 # The hole stays one.
                 [ $(stat -c %b out.$to) -lt $((52 << 11)) ]
                 rm out.$to
             done; done
             at_most 4096 convert -C -f qcow2 -O qed a.qcow2 c.qed
             at_most 4096 convert -W -m 4 -f raw -O qed -o cluster_size=4k a.raw small.qed
             at_most 12288 convert -f raw -O qcow2 -o cluster_size=2M a.raw large.qcow2
             at_most 4096 convert -t none -T none -f raw -O qcow2 a.raw direct.qcow2
             same raw a.raw qed c.qed; same raw a.raw qed small.qed
             same raw a.raw qcow2 large.qcow2; same raw a.raw qcow2 direct.qcow2
             before=$(used); qed convert --no-reflink -f raw -O raw a.raw copy.raw; after=$(used)
             [ $((after - before)) -gt $((47 << 10)) ]
             before=$(used); qed convert -S 4k -f raw -O raw a.raw copy2.raw; after=$(used)
             [ $((after - before)) -gt $((47 << 10)) ]
             # What is written to one does not show in the other.
             qemu-io -f qed -c 'write -q -P 9 0 1M' c.qed > made
             same raw a.raw qcow2 a.qcow2; cmp a.raw copy.raw",
        );
    }
}

#[test]
fn each_layer_of_a_chain_shares_its_own_and_what_cannot_be_shared_is_copied() {
    for (_, mkfs) in KINDS {
        on_shared(
            "each_layer_of_a_chain_shares_its_own_and_what_cannot_be_shared_is_copied",
            mkfs,
            "head -c 40M /dev/urandom > base.raw; truncate -s -100 base.raw
             qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2 48M
             qemu-io -f qcow2 -c 'write -q -P 1 1M 8M' -c 'write -q -P 2 20000k 3000k' mid.qcow2 > made
             qemu-img create -q -f qed -b mid.qcow2 -F qcow2 top.qed
             qemu-io -f qed -c 'write -q -P 3 5M 4M' -c 'write -q -P 4 46M 70k' \
                     -c 'write -q -z 30M 2M' top.qed > made
             chain='-f qed --backing-format qcow2 --backing-format raw'
             # XFS keeps up to 8 MiB ready behind a write that makes a file longer.
             for to in raw qed qcow2; do
                 at_most 12288 convert $chain -O $to top.qed flat.$to
                 same qed top.qed $to flat.$to
             done
             # Onto the same backing file: only the top is new.
             at_most 2048 convert $chain -O qed -B mid.qcow2 -F qcow2 top.qed again.qed
             same qed top.qed qed again.qed
             # A compressed cluster, a small cluster and a place between two blocks are copied.
             qemu-img convert -c -f raw -O qcow2 flat.raw packed.qcow2
             qed convert -f qcow2 -O raw packed.qcow2 unpacked.raw; cmp flat.raw unpacked.raw
             qed convert -f raw -O qcow2 -o cluster_size=512 flat.raw fine.qcow2
             same raw flat.raw qcow2 fine.qcow2
             qed dd -f raw -O raw bs=512 skip=1 if=flat.raw of=shifted.raw
             cmp -i 512:0 flat.raw shifted.raw
             # From another file system.
             cp flat.raw ../elsewhere.raw; qed convert -f raw -O qed ../elsewhere.raw far.qed
             same raw flat.raw qed far.qed",
        );
    }
}
