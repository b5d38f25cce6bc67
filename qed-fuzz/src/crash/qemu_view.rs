//! QEMU opens an image after a crash: it has to see what the guest was promised.

use std::fs;
use std::path::Path;

use super::failure::write_sparse;
use super::guest::{BACKING, Guest, content};
use super::rules::is_active;
use super::workload::Workload;
use crate::qemu::qemu_img;
use crate::size::usize_of;
use crate::sparse::{SECTOR, SparseContent};

/// Lets QEMU repair the image and read its disk, or refuse it while a journal holds part of it; false
/// where the image is not for QEMU.
///
/// # Errors
/// It cannot, or it sees something else.
pub(crate) fn judge(
    state: &SparseContent,
    guest: &Guest,
    workload: &Workload,
) -> Result<bool, String> {
    // Nobody made files of the names that a step gives the backing file.
    let is_base = |name: &Option<Vec<u8>>| name.as_deref().is_none_or(|name| name == b"base");
    if !guest.names.iter().all(is_base) {
        return Ok(false);
    }
    let folder = tempfile::tempdir_in("/dev/shm").map_err(|error| error.to_string())?;
    let [image, raw, base] = ["image", "raw", "base"].map(|name| folder.path().join(name));
    write_sparse(state, &image).map_err(|error| error.to_string())?;
    if workload.backing > 0 {
        let bytes: Vec<u8> =
            (0..workload.backing).flat_map(|sector| content(BACKING, sector)).collect();
        fs::write(base, bytes).map_err(|error| error.to_string())?;
    }
    if is_active(state) {
        let info = qemu_img(["info", "-f", "qed", text(&image)]);
        return if info.code == Some(0) { Err(format!("QEMU opens {info:?}")) } else { Ok(true) };
    }
    let checked = qemu_img(["check", "-q", "-f", "qed", "-r", "all", text(&image)]);
    // 3 is for leaks, which a crash may leave.
    if !matches!(checked.code, Some(0 | 3)) {
        return Err(format!("qemu-img check says {checked:?}"));
    }
    let read = qemu_img(["convert", "-f", "qed", "-O", "raw", text(&image), text(&raw)]);
    if read.code != Some(0) {
        return Err(format!("qemu-img convert says {read:?}"));
    }
    let found = fs::read(raw).map_err(|error| error.to_string())?;
    for (sector, found) in (0..).zip(found.chunks_exact(usize_of(SECTOR))) {
        let is_watched = guest.watched().binary_search(&sector).is_ok();
        if is_watched && !guest.allows(sector, found) {
            return Err(format!("QEMU sees something else in sector {sector}"));
        }
    }
    Ok(true)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}
