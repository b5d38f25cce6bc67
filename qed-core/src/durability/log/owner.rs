//! The head of an image as the owner of its journal: JOURNAL_ACTIVE in sector 0, and the tail in the
//! superblock.
//!
//! Takes no lock but the head's, which nobody holds while waiting for a commit or a checkpoint.

use std::io;

use qed_journal::{Owner, TailMove, TailMoved};
use qed_spec::{Features, SectionType};

use crate::error::ImageError;
use crate::head::Head;

pub(super) struct HeadOwner<'a>(pub(super) &'a Head);

impl HeadOwner<'_> {
    fn write_active(&self, on: bool) -> io::Result<()> {
        let change = self.0.update(|fields| fields.features.set(Features::JOURNAL_ACTIVE, on));
        change.map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync().map_err(|error| match error {
            ImageError::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }
}

impl Owner for HeadOwner<'_> {
    // spec: QED-JRN-16
    fn set_active(&self) -> io::Result<()> {
        self.write_active(true)?;
        self.sync()
    }

    fn clear_active(&self) -> io::Result<()> {
        self.write_active(false)
    }

    // spec: QED-JRN-20, QED-JRN-24
    fn move_tail(&self, to: TailMove) -> io::Result<TailMoved> {
        let written = self.0.change_superblock(|builder| {
            builder.set_epoch(to.epoch());
            builder.set_section(SectionType::JOURNAL, &to.ring().encode())
        });
        let generation = written.map_err(io::Error::other)?;
        self.sync()?;
        Ok(to.durable(generation))
    }
}
