//! Lists of operations with ranges that like the edges of clusters.

use std::ops::Range;

use arbitrary::{Result, Unstructured};

use crate::generators::image_plan::ImagePlan;
use crate::operation::Operation;

/// Up to `count` operations for a new image of this plan, one after the other.
///
/// # Errors
/// None; the bytes may only make the list shorter.
pub fn operations(
    from: &mut Unstructured<'_>,
    plan: &ImagePlan,
    count: usize,
) -> Result<Vec<Operation>> {
    let mut size = plan.image_size;
    let mut list = Vec::new();
    while list.len() < count && !from.is_empty() {
        let operation = operation(from, plan, size)?;
        if let Operation::Resize { size: new } = operation {
            size = new;
        }
        list.push(operation);
    }
    Ok(list)
}

/// One operation for a disk that has `size` bytes now.
pub(crate) fn operation(
    from: &mut Unstructured<'_>,
    plan: &ImagePlan,
    size: u64,
) -> Result<Operation> {
    let cluster = plan.geometry.cluster_size_bytes();
    Ok(match from.int_in_range(0..=15)? {
        0..8 => Operation::Write { range: range(from, cluster, size)?, fill: from.arbitrary()? },
        8..10 => Operation::WriteZeroes { range: range(from, cluster, size)? },
        10..12 => Operation::Unmap { range: range(from, cluster, size)? },
        12..14 => Operation::Read { range: range(from, cluster, size)? },
        14 => Operation::Flush,
        _ => {
            let most = plan.image_size + 8 * cluster;
            Operation::Resize { size: 512 * from.int_in_range(1..=most / 512)? }
        }
    })
}

/// A range inside a disk: anywhere, from a sector, or from a cluster on; bytes or whole clusters.
pub(crate) fn range(from: &mut Unstructured<'_>, cluster: u64, size: u64) -> Result<Range<u64>> {
    let anywhere = from.int_in_range(0..=size - 1)?;
    let unit = *from.choose(&[1, 512, cluster, cluster])?;
    let start = anywhere - anywhere % unit;
    let len = match from.int_in_range(0..=3)? {
        0 => from.int_in_range(1..=16)?,
        1 => from.int_in_range(1..=2 * cluster)?,
        2 => cluster * from.int_in_range(1..=4)?,
        _ => from.int_in_range(1..=16 * cluster)?,
    };
    Ok(start..start.saturating_add(len).min(size))
}
