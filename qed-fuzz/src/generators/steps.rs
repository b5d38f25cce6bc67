//! Lists of what a virtual machine monitor does to an open image: operations, and calls that no
//! guest can make.

use std::ops::Range;

use arbitrary::{Result, Unstructured};

use crate::generators::image_plan::ImagePlan;
use crate::generators::operations::{operation, range};
use crate::operation::Operation;

/// One call of an open image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Operate(Operation),
    /// Makes the range read as zeros whatever backing file comes later.
    ZeroOverAnyBacking(Range<u64>),
    /// Says that nobody wants the whole clusters in a range any more, which are these.
    Discard {
        range: Range<u64>,
        whole: Range<u64>,
    },
    /// Looks for space that nothing names.
    Sweep,
    /// Prepares a write, puts its data into place and gives it up.
    Abandon {
        range: Range<u64>,
        fill: u8,
    },
    /// The timer rings this many seconds after it did before.
    Maintain {
        seconds: u64,
    },
}

/// Up to `count` steps for a disk that has `size` bytes before the first.
pub(crate) fn steps(
    from: &mut Unstructured<'_>,
    plan: &ImagePlan,
    mut size: u64,
    count: usize,
) -> Result<Vec<Step>> {
    let cluster = plan.geometry.cluster_size_bytes();
    let mut list = Vec::new();
    while list.len() < count && !from.is_empty() {
        list.push(match from.int_in_range(0..=12)? {
            0 => Step::ZeroOverAnyBacking(range(from, cluster, size)?),
            1 => Step::Abandon { range: range(from, cluster, size)?, fill: from.arbitrary()? },
            2 => Step::Maintain { seconds: from.int_in_range(0..=9)? },
            3 | 4 => discard(range(from, cluster, size)?, cluster, size),
            5 => Step::Sweep,
            _ => {
                let operation = operation(from, plan, size)?;
                if let Operation::Resize { size: new } = operation {
                    size = new;
                }
                Step::Operate(operation)
            }
        });
    }
    Ok(list)
}

/// A discard on a disk of `size` bytes, of which the last cluster may be partial.
fn discard(range: Range<u64>, cluster: u64, size: u64) -> Step {
    let end = if range.end == size { size } else { range.end - range.end % cluster };
    let whole = range.start.next_multiple_of(cluster).min(end)..end;
    Step::Discard { range, whole }
}
