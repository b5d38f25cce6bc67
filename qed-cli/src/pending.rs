//! What a killed server left of an image in memory, for commands that read the file as it is or work on
//! it themselves.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use qed::{Keeps, Owner};
use qed_convert::chain::{FormatSource, Layer};
use qed_core::GivenBacking;
use qed_io::FileStorage;

use crate::args::Format;
use crate::console::Console;
use crate::failure::shown;
use crate::open::{WriteHow, writable_qed};

/// How many changes wait for the next writer, or for the server that has the image now.
pub(crate) fn waiting(image: &Layer) -> u64 {
    let owner = Owner::of(image.storage(), Keeps::Nothing).ok();
    // What cannot be asked is not known to wait; a writer says why.
    owner.map_or(0, |owner| owner.waiting())
}

/// Says on standard error that the file does not have all of the disk, where that is so.
pub(crate) fn warn_of_waiting(console: &Console, image: &Layer) {
    let waiting = if image.format() == Format::Qed { waiting(image) } else { 0 };
    if waiting > 0 {
        let name = shown(image.path());
        console.error(&format!(
            "warning: '{name}' lacks {waiting} changes that its server acknowledged and did not flush; the \
             next program that writes it adds them"
        ));
    }
}

/// Makes what a killed server left part of a QED image, whose file is open for writing and locked, and
/// closes the image again; nothing where nothing is left.
pub(crate) fn take_over(image: &Layer) -> anyhow::Result<()> {
    if image.format() != Format::Qed || waiting(image) == 0 {
        return Ok(());
    }
    let take_over = || {
        let opened = writable_qed(image, &GivenBacking(None), WriteHow::default())?;
        anyhow::Ok(opened.close()?)
    };
    take_over().with_context(|| {
        let log = Owner::of(image.storage(), Keeps::Nothing).ok().and_then(|owner| owner.log_name());
        format!(
            "What its server acknowledged and did not flush cannot be added to '{}'. To give that up, \
             remove the log {}",
            shown(image.path()),
            log.unwrap_or_default()
        )
    })
}

/// As [`take_over`], of a file that may hold an image in any format, or in two.
pub(crate) fn take_over_file(path: &Path, file: &Arc<FileStorage>) -> anyhow::Result<()> {
    // What is no QED image has no log.
    match Layer::from_storage(path, Arc::clone(file), FormatSource::Stated(Format::Qed)) {
        Ok(layer) => take_over(&layer),
        Err(_) => Ok(()),
    }
}
