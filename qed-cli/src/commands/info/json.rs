//! `info` as JSON: `qemu-img`'s keys in its order; what it does not have stands under
//! `format-specific`.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use qed_convert::{Qcow2Compression, Qcow2SnapshotInfo, UnknownFeature};
use qed_core::Consistency;
use qed_spec::Features;

use super::encryption;
use super::report::{BackingReport, ImageReport, Qcow2Report, QedReport, Specific};
use crate::output::{JsonWriter, snapshots_json};

/// Writes one object, or for a chain a list of them.
pub(super) fn write(
    out: &mut impl Write,
    reports: &[ImageReport],
    as_list: bool,
) -> io::Result<()> {
    let mut json = JsonWriter::new(out);
    if as_list {
        json.begin_array()?;
    }
    for report in reports {
        image(&mut json, report)?;
    }
    if as_list {
        json.end_array()?;
    }
    json.finish()
}

fn image<W: Write>(json: &mut JsonWriter<W>, report: &ImageReport) -> io::Result<()> {
    json.begin_object()?;
    file_node(json, report)?;
    if let Specific::Qcow2(qcow2) = &report.specific {
        snapshots(json, &qcow2.snapshots)?;
    }
    if let Some(BackingReport { format: Some(format), .. }) = &report.backing {
        json.string_member("backing-filename-format", format.as_bytes())?;
    }
    if let Some(virtual_size) = report.virtual_size {
        json.plain_member("virtual-size", virtual_size)?;
    }
    json.string_member("filename", report.name.as_bytes())?;
    if let Some(cluster_size) = report.cluster_size {
        json.plain_member("cluster-size", cluster_size)?;
    }
    json.string_member("format", report.format)?;
    json.plain_member("actual-size", report.disk_size)?;
    match &report.specific {
        Specific::Nothing => {}
        Specific::Qed(qed_report) => qed(json, qed_report, report)?,
        Specific::Qcow2(qcow2_report) => qcow2(json, qcow2_report, &report.unknown)?,
    }
    if let Some(backing) = &report.backing {
        json.string_member("full-backing-filename", backing.path.as_bytes())?;
    }
    if report.encrypted {
        json.plain_member("encrypted", true)?;
    }
    if let Some(backing) = &report.backing {
        json.string_member("backing-filename", backing.name.as_bytes())?;
    }
    json.plain_member("dirty-flag", report.dirty)?;
    json.end_object()
}

/// The file that holds the image, as QEMU's node below the format.
fn file_node<W: Write>(json: &mut JsonWriter<W>, report: &ImageReport) -> io::Result<()> {
    json.key("children")?;
    json.begin_array()?;
    json.begin_object()?;
    json.string_member("name", "file")?;
    json.key("info")?;
    json.begin_object()?;
    json.key("children")?;
    json.begin_array()?;
    json.end_array()?;
    json.plain_member("virtual-size", report.file_len)?;
    json.string_member("filename", report.name.as_bytes())?;
    json.string_member("format", "file")?;
    json.plain_member("actual-size", report.disk_size)?;
    begin_specific(json, "file")?;
    end_specific(json)?;
    json.plain_member("dirty-flag", false)?;
    json.end_object()?;
    json.end_object()?;
    json.end_array()
}

fn begin_specific<W: Write>(json: &mut JsonWriter<W>, kind: &str) -> io::Result<()> {
    json.key("format-specific")?;
    json.begin_object()?;
    json.string_member("type", kind)?;
    json.key("data")?;
    json.begin_object()
}

fn end_specific<W: Write>(json: &mut JsonWriter<W>) -> io::Result<()> {
    json.end_object()?;
    json.end_object()
}

/// What the header of a QED image has beyond `qemu-img`'s keys.
fn qed<W: Write>(
    json: &mut JsonWriter<W>,
    report: &QedReport,
    ImageReport { backing, unknown, .. }: &ImageReport,
) -> io::Result<()> {
    let header = &report.header;
    let fields = header.fields();
    begin_specific(json, "qed")?;
    json.plain_member("table-size", header.geometry().table_size_clusters())?;
    json.plain_member("header-size", fields.header_size_clusters)?;
    json.plain_member("features", header.features().bits())?;
    json.plain_member("compat-features", fields.compat_features.bits())?;
    json.plain_member("autoclear-features", fields.autoclear_features.bits())?;
    consistency(json, report)?;
    if report.conversion().is_some() {
        let is_held = header.features().contains(Features::CONVERSION_HOLD);
        json.plain_member("can-be-undone", true)?;
        json.plain_member("opens-in-qemu", !is_held)?;
    }
    if let Some(name) = backing.as_ref().map(|backing| &backing.name)
        && name.to_str().is_none()
    {
        // The other members cannot show such a name without loss.
        let hex: String = name.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        json.string_member("backing-filename-hex", hex)?;
    }
    unsupported(json, unknown)?;
    end_specific(json)
}

/// How the tables survive a crash, and what the last writer left.
fn consistency<W: Write>(json: &mut JsonWriter<W>, report: &QedReport) -> io::Result<()> {
    match &report.consistency {
        Ok(Consistency::Classic) => json.string_member("consistency", "classic")?,
        Ok(Consistency::Compat { uuid, bitmap, marked_tables }) => {
            json.string_member("consistency", "compat")?;
            json.string_member("uuid", uuid.to_string())?;
            if bitmap.is_some() {
                json.plain_member("marked-tables", marked_tables)?;
            }
        }
        Ok(Consistency::Journal { uuid, ring, is_kept }) => {
            json.string_member("consistency", "journal")?;
            json.string_member("uuid", uuid.to_string())?;
            json.plain_member("journal-offset", ring.offset().get())?;
            json.plain_member("journal-size", ring.len_bytes())?;
            json.plain_member("journal-kept", is_kept)?;
        }
        Err(error) => json.string_member("not-writable", error)?,
    }
    match &report.waiting {
        Some(Ok(waiting)) => json.plain_member("journal-commits", waiting.commits),
        Some(Err(error)) => json.string_member("journal-error", error),
        None => Ok(()),
    }
}

/// The features that keep an image from being opened.
fn unsupported<W: Write>(json: &mut JsonWriter<W>, features: &[UnknownFeature]) -> io::Result<()> {
    if features.is_empty() {
        return Ok(());
    }
    json.key("unsupported-features")?;
    json.begin_array()?;
    for feature in features {
        json.begin_object()?;
        json.plain_member("bit", feature.bit)?;
        if let Some(name) = &feature.name {
            json.string_member("name", name)?;
        }
        json.end_object()?;
    }
    json.end_array()
}

fn qcow2<W: Write>(
    json: &mut JsonWriter<W>,
    report: &Qcow2Report,
    unknown: &[UnknownFeature],
) -> io::Result<()> {
    let header = &report.header;
    let is_v3 = header.version() >= 3;
    begin_specific(json, "qcow2")?;
    json.string_member("compat", header.compat())?;
    let compression = match header.compression() {
        Qcow2Compression::Zlib => "zlib",
        Qcow2Compression::Zstd => "zstd",
    };
    json.string_member("compression-type", compression)?;
    if is_v3 {
        json.plain_member("lazy-refcounts", header.has_lazy_refcounts())?;
    }
    bitmaps(json, report)?;
    json.plain_member("refcount-bits", header.refcount_bits())?;
    let data_file = header.data_file();
    if let Some(name) = data_file.and_then(|file| file.name) {
        json.string_member("data-file", name)?;
    }
    if let Some(encryption) = header.encryption() {
        encryption::write(json, encryption, report.luks.as_ref())?;
    }
    if let Some(file) = data_file {
        json.plain_member("data-file-raw", file.is_raw)?;
    }
    if is_v3 {
        json.plain_member("corrupt", header.is_corrupt())?;
        json.plain_member("extended-l2", header.has_extended_l2())?;
    }
    unsupported(json, unknown)?;
    end_specific(json)
}

fn bitmaps<W: Write>(json: &mut JsonWriter<W>, report: &Qcow2Report) -> io::Result<()> {
    if report.bitmaps.is_empty() {
        return Ok(());
    }
    json.key("bitmaps")?;
    json.begin_array()?;
    for bitmap in &report.bitmaps {
        json.begin_object()?;
        json.key("flags")?;
        json.begin_array()?;
        for (flag, set) in [("in-use", bitmap.in_use), ("auto", bitmap.auto)] {
            if set {
                json.string(flag)?;
            }
        }
        json.end_array()?;
        json.string_member("name", &bitmap.name)?;
        json.plain_member("granularity", bitmap.granularity)?;
        json.end_object()?;
    }
    json.end_array()
}

fn snapshots<W: Write>(
    json: &mut JsonWriter<W>,
    snapshots: &[Qcow2SnapshotInfo],
) -> io::Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    json.key("snapshots")?;
    snapshots_json(json, snapshots)
}
