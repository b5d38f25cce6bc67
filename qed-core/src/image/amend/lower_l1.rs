//! Moving the L1 table of an image that nobody has open down into free space, where it lies last and keeps
//! the file from getting shorter: conversions in place and amends put it there.
//!
//! Step names are those of docs/write-ordering.md.

use std::sync::Arc;

use qed_io::Storage;

use crate::data::disk::GivenBacking;
use crate::error::{AmendError, ImageError};
use crate::head::closed::ClosedHead;
use crate::image::Image;
use crate::image::amend::room::move_l1_to;
use crate::options::{LockPolicy, RecoveryPolicy, WriteContext};

/// Moves the L1 table of the image in `storage` down if it lies last and there is free space below that it
/// fits into; returns whether it was moved, durably. Then its old place is free, and the next
/// [`Image::compact`] can cut the file there.
///
/// The image is opened for writing and closed first, as by [`crate::amend`].
///
/// # Errors
/// As [`Image::open`] and [`Image::sweep`]; failed I/O. The image is whole: its L1 table is the old one
/// or the new one.
// spec: QED-HDR-09
pub fn lower_l1(
    storage: &Arc<dyn Storage>,
    lock: LockPolicy,
    recovery: RecoveryPolicy<'_>,
) -> Result<bool, AmendError> {
    let context = WriteContext::new(&GivenBacking(None), lock, recovery);
    let image = Image::open(storage.clone(), &context)?;
    let (room, len) = (image.room_below_l1()?, image.map.l1.len() * 8);
    // Step "close": the log is empty, and what was reserved for the table is nobody's.
    image.close()?;
    let Some(to) = room else { return Ok(false) };
    let mut found = ClosedHead::read(&**storage)?;
    move_l1_to(storage, &mut found.sector, to, len)?;
    Ok(true)
}

impl Image {
    /// Where the L1 table fits in below, if it lies last.
    fn room_below_l1(&self) -> Result<Option<u64>, ImageError> {
        let geometry = self.map.geometry;
        let l1 = self.map.l1.offset().get();
        if l1 + geometry.table_size_bytes() < self.space.alloc.end.bytes() || !self.sweep()? {
            return Ok(None);
        }
        let run = self.space.alloc.free.take_table(geometry.table_size_clusters());
        let to = run.map(|run| geometry.host_offset(run.first).get());
        Ok(to.filter(|to| *to < l1))
    }
}
