//! `-l`: which internal snapshot of a QCOW2 image to read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::anyhow;
use qed_convert::qcow2::Qcow2SnapshotSelector;

use crate::failure::shown;

/// The snapshot that the value of `-l` names: an id or a name, or `snapshot.id=`, `snapshot.name=`.
pub(crate) fn parse_snapshot(value: &OsStr) -> anyhow::Result<Qcow2SnapshotSelector> {
    Qcow2SnapshotSelector::parse(value.as_bytes())
        .ok_or_else(|| anyhow!("Failed in parsing snapshot param '{}'", shown(value)))
}
