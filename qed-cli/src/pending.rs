//! What a killed server left of an image in memory, for commands that read the file as it is or work on
//! it themselves.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use qed::{Keeps, Owner, PendingLost};
use qed_convert::chain::{FormatSource, Layer};
use qed_core::{GivenBacking, describe_header, read_owner};
use qed_io::FileStorage;
use qed_spec::AutoclearFeatures;

use crate::args::Format;
use crate::console::Console;
use crate::failure::shown;
use crate::open::{WriteHow, storage_of, writable_qed};

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

/// As [`take_over`], for a repair, which goes on where the log is lost: nobody could open the image
/// otherwise.
pub(crate) fn take_over_to_repair(console: &Console, image: &Layer) -> anyhow::Result<()> {
    if !is_lost(image) {
        return take_over(image);
    }
    let name = shown(image.path());
    console.error(&format!(
        "warning: what the last server of '{name}' acknowledged and did not flush is given up: its log is \
         not found"
    ));
    Ok(())
}

/// Makes what a killed server left part of a QED image, whose file is open for writing and locked, and
/// closes the image again; nothing where nothing is left.
///
/// # Errors
/// It cannot be made part of the image, or its log is lost: to write the image all the same would hide
/// that.
pub(crate) fn take_over(image: &Layer) -> anyhow::Result<()> {
    if is_lost(image) {
        bail!(
            "What the last server of '{}' acknowledged and did not flush may be lost: its log is not found. \
             'qed serve --pending-lost accept' gives that up",
            shown(image.path())
        );
    }
    if image.format() != Format::Qed || waiting(image) == 0 {
        return Ok(());
    }
    let take_over = || {
        let opened = writable_qed(image, &GivenBacking(None), WriteHow::default())?;
        anyhow::Ok(opened.close()?)
    };
    take_over().with_context(|| {
        let log =
            Owner::of(image.storage(), Keeps::Nothing).ok().and_then(|owner| owner.log_name());
        format!(
            "What its server acknowledged and did not flush cannot be added to '{}'. 'qed serve \
             --pending-lost accept' gives that up, or a repair once the log {} is removed",
            shown(image.path()),
            log.unwrap_or_default()
        )
    })
}

/// Whether a server had the image that was killed since this system started, and its log is not there: an
/// opener for writing would refuse it.
fn is_lost(image: &Layer) -> bool {
    let last_without_log = || {
        let owner = Owner::of(image.storage(), Keeps::Nothing).ok()?;
        let storage = storage_of(image);
        let (header, _) = describe_header(&*storage).ok()?;
        let is_owned = header.fields().autoclear_features.contains(AutoclearFeatures::OWNED);
        let last =
            read_owner(&*storage).ok()?.filter(|_| is_owned && owner.log_name().is_none())?;
        // As an opener for writing has it: who does not know its boot cannot tell that it is another one.
        let boot_id = owner.ownership(PendingLost::Refuse).boot_id;
        Some([*last.boot_id(), [0; 16]].contains(&boot_id))
    };
    // What cannot be read is told by whoever opens it.
    image.format() == Format::Qed && last_without_log().unwrap_or(false)
}

/// As [`take_over`], of a file that may hold an image in any format, or in two.
pub(crate) fn take_over_file(path: &Path, file: &Arc<FileStorage>) -> anyhow::Result<()> {
    // What is no QED image has no log.
    match Layer::from_storage(path, Arc::clone(file), FormatSource::Stated(Format::Qed)) {
        Ok(layer) => take_over(&layer),
        Err(_) => Ok(()),
    }
}
