//! What QEMU is asked to do: the operations of a list, less those that it gets wrong.
//!
//! Each fault that is stepped around here is a test of its own in the conformance crate.

use std::ops::Range;

use qed_fuzz::{ImagePlan, Operation};

/// The operation as QEMU can do it on a disk of `size` bytes; none if it cannot.
pub(crate) fn for_qemu(operation: Operation, plan: &ImagePlan, size: u64) -> Option<Operation> {
    match operation {
        Operation::Write { range, fill } => {
            Some(Operation::Write { range: whole_clusters(range, plan, size), fill })
        }
        Operation::WriteZeroes { range } => {
            Some(Operation::WriteZeroes { range: whole_clusters(range, plan, size) })
        }
        Operation::Resize { size: new } => {
            // It cannot shrink a disk, nor grow an overlay over a longer backing file: QED-QEMU-12.
            let hides_backing = plan.backing_size.is_some_and(|backing| backing > size);
            (new > size && !hides_backing).then_some(operation)
        }
        Operation::Read { .. } | Operation::Flush => Some(operation),
    }
}

/// With a backing file QEMU fills the rest of a zero cluster from it, wrongly: QED-QEMU-11. So it
/// writes whole clusters there.
fn whole_clusters(range: Range<u64>, plan: &ImagePlan, size: u64) -> Range<u64> {
    if plan.backing_size.is_none() {
        return range;
    }
    let cluster = plan.geometry.cluster_size_bytes();
    range.start - range.start % cluster..range.end.next_multiple_of(cluster).min(size)
}
