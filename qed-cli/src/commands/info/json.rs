//! `info` as JSON: `qemu-img`'s keys in its order; what it does not have stands under
//! `format-specific`.

use std::os::unix::ffi::OsStrExt;

use qed_convert::qcow2::{Qcow2Compression, UnknownFeature};
use qed_core::Consistency;
use qed_spec::Features;
use serde_json::{Map, Value, json};

use super::report::{BackingReport, ImageReport, Qcow2Report, QedReport, Specific};
use super::{encryption, owner, space};
use crate::output::{snapshots_json, text, unless_empty};

/// One image. Members that do not apply are null.
pub(super) fn image(report: &ImageReport) -> Value {
    let backing = report.backing.as_ref();
    let name = text(report.name.as_bytes());
    let (snapshots, specific) = match &report.specific {
        Specific::Nothing => (None, None),
        Specific::Qed(qed_report) => (None, Some(qed(qed_report, report))),
        Specific::Qcow2(qcow2_report) => {
            let snapshots = unless_empty(snapshots_json(&qcow2_report.snapshots));
            (snapshots, Some(qcow2(qcow2_report, &report.unknown)))
        }
    };
    let format_of = |backing: &BackingReport| Some(text(backing.format.as_ref()?.as_bytes()));
    json!({
        // The file that holds the image is QEMU's node below the format.
        "children": [{
            "name": "file",
            "info": {
                "children": [],
                "virtual-size": report.file_len,
                "filename": name,
                "format": "file",
                "actual-size": report.disk_size,
                "format-specific": { "type": "file", "data": {} },
                "dirty-flag": false,
            },
        }],
        "snapshots": snapshots,
        "backing-filename-format": backing.and_then(format_of),
        "virtual-size": report.virtual_size,
        "filename": name,
        "cluster-size": report.cluster_size,
        "format": report.format,
        "actual-size": report.disk_size,
        "format-specific": specific,
        "full-backing-filename": backing.map(|backing| text(backing.path.as_bytes())),
        "encrypted": report.encrypted.then_some(true),
        "backing-filename": backing.map(|backing| text(backing.name.as_bytes())),
        "dirty-flag": report.dirty,
    })
}

/// What the header of a QED image has beyond `qemu-img`'s keys.
fn qed(report: &QedReport, image: &ImageReport) -> Value {
    let header = &report.header;
    let fields = header.fields();
    let mut data = Map::new();
    let mut add = |members: Value| {
        if let Value::Object(members) = members {
            data.extend(members);
        }
    };
    add(json!({
        "table-size": header.geometry().table_size_clusters(),
        "header-size": fields.header_size_clusters,
        "features": header.features().bits(),
        "compat-features": fields.compat_features.bits(),
        "autoclear-features": fields.autoclear_features.bits(),
    }));
    add(consistency(report));
    add(report.owner.map_or(json!({}), |owner| owner::json(&owner)));
    add(json!({ "pending-changes": Some(report.pending).filter(|waiting| *waiting > 0) }));
    add(space::json(&report.space));
    // The other members cannot show a name without loss that is no UTF-8.
    let name = image.backing.as_ref().map(|backing| &backing.name);
    let name = name.filter(|name| name.to_str().is_none());
    let undo = report.conversion().map(|_| !header.features().contains(Features::CONVERSION_HOLD));
    add(json!({
        "can-be-undone": undo.map(|_| true),
        "opens-in-qemu": undo,
        "backing-filename-hex": name.map(|name| hex(name.as_bytes())),
        "unsupported-features": unsupported(&image.unknown),
    }));
    json!({ "type": "qed", "data": data })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the tables survive a crash, and what the last writer left.
fn consistency(report: &QedReport) -> Value {
    let mut members = match &report.consistency {
        Ok(Consistency::Classic) => json!({ "consistency": "classic" }),
        Ok(Consistency::Compat { uuid, bitmap, marked_tables }) => json!({
            "consistency": "compat",
            "uuid": uuid.to_string(),
            "marked-tables": bitmap.is_some().then_some(marked_tables),
        }),
        Ok(Consistency::Journal { uuid, ring, is_kept }) => json!({
            "consistency": "journal",
            "uuid": uuid.to_string(),
            "journal-offset": ring.offset().get(),
            "journal-size": ring.len_bytes(),
            "journal-kept": is_kept,
        }),
        Err(error) => json!({ "not-writable": text(error) }),
    };
    match &report.waiting {
        Some(Ok(waiting)) => members["journal-commits"] = json!(waiting.commits),
        Some(Err(error)) => members["journal-error"] = text(error),
        None => {}
    }
    members
}

/// The features that keep an image from being opened.
fn unsupported(features: &[UnknownFeature]) -> Option<Vec<Value>> {
    let feature =
        |it: &UnknownFeature| json!({ "bit": it.bit, "name": it.name.as_ref().map(text) });
    unless_empty(features.iter().map(feature).collect())
}

fn qcow2(report: &Qcow2Report, unknown: &[UnknownFeature]) -> Value {
    let header = &report.header;
    let is_v3 = header.version() >= 3;
    let data_file = header.data_file();
    let compression = match header.compression() {
        Qcow2Compression::Zlib => "zlib",
        Qcow2Compression::Zstd => "zstd",
    };
    let encryption = header.encryption();
    json!({
        "type": "qcow2",
        "data": {
            "compat": header.compat(),
            "compression-type": compression,
            "lazy-refcounts": is_v3.then(|| header.has_lazy_refcounts()),
            "bitmaps": bitmaps(report),
            "refcount-bits": header.refcount_bits(),
            "data-file": data_file.and_then(|file| file.name).map(text),
            "encrypt": encryption.map(|it| encryption::json(it, report.luks.as_ref())),
            "data-file-raw": data_file.map(|file| file.is_raw),
            "corrupt": is_v3.then(|| header.is_corrupt()),
            "extended-l2": is_v3.then(|| header.has_extended_l2()),
            "unsupported-features": unsupported(unknown),
        },
    })
}

fn bitmaps(report: &Qcow2Report) -> Option<Vec<Value>> {
    let bitmaps = report.bitmaps.iter().map(|bitmap| {
        let flags = [("in-use", bitmap.in_use), ("auto", bitmap.auto)];
        let set = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| *flag);
        json!({
            "flags": set.collect::<Vec<_>>(),
            "name": text(&bitmap.name),
            "granularity": bitmap.granularity,
        })
    });
    unless_empty(bitmaps.collect())
}
