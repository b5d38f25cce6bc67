//! `info` for people, line by line as `qemu-img` has it.

use std::os::unix::ffi::OsStrExt;

use qed_convert::qcow2::{Qcow2Compression, UnknownFeature};
use qed_core::Consistency;

use super::report::{ImageReport, Qcow2Report, QedReport, Specific};
use super::{encryption, owner, space};
use crate::failure::printed;
use crate::output::{human_size, snapshot_list};

/// The reports of a chain, with an empty line between images.
pub(super) fn text(reports: &[ImageReport]) -> Vec<u8> {
    let texts: Vec<Vec<u8>> = reports.iter().map(image_text).collect();
    texts.join(&b'\n')
}

fn image_text(report: &ImageReport) -> Vec<u8> {
    let mut text = Text::default();
    text.line(&[b"image: ", report.name.as_bytes()]);
    text.line(&[b"file format: ", report.format.as_bytes()]);
    if let Some(size) = report.virtual_size {
        text.line(&[format!("virtual size: {} ({size} bytes)", human_size(size)).as_bytes()]);
    }
    let disk_size = human_size(report.disk_size);
    text.line(&[format!("disk size: {disk_size}").as_bytes()]);
    if report.encrypted {
        text.line(&[b"encrypted: yes"]);
    }
    if let Some(cluster_size) = report.cluster_size {
        text.line(&[format!("cluster_size: {cluster_size}").as_bytes()]);
    }
    if report.dirty {
        text.line(&[b"cleanly shut down: no"]);
    }
    if let Some(backing) = &report.backing {
        let (name, path) = (backing.name.as_bytes(), backing.path.as_bytes());
        if name == path {
            text.line(&[b"backing file: ", name]);
        } else {
            text.line(&[b"backing file: ", name, b" (actual path: ", path, b")"]);
        }
        if let Some(format) = &backing.format {
            text.line(&[b"backing file format: ", format.as_bytes()]);
        }
    }
    if let Specific::Qcow2(qcow2) = &report.specific {
        text.0.extend(snapshot_list(&qcow2.snapshots));
        text.qcow2(qcow2);
    }
    if let Specific::Qed(qed) = &report.specific {
        text.qed(qed);
    }
    for UnknownFeature { bit, name } in &report.unknown {
        let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        text.line(&[format!("    unsupported feature: bit {bit}{name}").as_bytes()]);
    }
    text.line(&[b"Child node '/file':"]);
    text.line(&[b"    filename: ", report.name.as_bytes()]);
    text.line(&[b"    protocol type: file"]);
    let len = report.file_len;
    text.line(&[format!("    file length: {} ({len} bytes)", human_size(len)).as_bytes()]);
    text.line(&[format!("    disk size: {disk_size}").as_bytes()]);
    text.0
}

#[derive(Debug, Default)]
struct Text(Vec<u8>);

impl Text {
    /// One line; whatever names an image has in it, they stay in the line.
    fn line(&mut self, parts: &[&[u8]]) {
        self.0.extend(printed(&parts.concat()));
        self.0.push(b'\n');
    }

    /// What a classic image does not have, and `qemu-img` does not know.
    fn qed(&mut self, report: &QedReport) {
        let mut details = report.conversion().map(str::to_owned).into_iter().collect::<Vec<_>>();
        match &report.consistency {
            Ok(Consistency::Classic) => {}
            Ok(Consistency::Compat { uuid, bitmap, marked_tables }) => {
                details.push("consistency: compat".to_owned());
                details.push(format!("uuid: {uuid}"));
                details.push(match bitmap {
                    Some(_) => format!("tables marked dirty: {marked_tables}"),
                    None => "tables marked dirty: not known, another program wrote it".to_owned(),
                });
            }
            Ok(Consistency::Journal { uuid, ring, is_kept }) => {
                details.push("consistency: journal".to_owned());
                details.push(format!("uuid: {uuid}"));
                let len = ring.len_bytes();
                details.push(format!("journal size: {} ({len} bytes)", human_size(len)));
                if !is_kept {
                    details.push("journal: another program wrote the image since".to_owned());
                }
            }
            Err(error) => details.push(format!("not writable: {error}")),
        }
        details.extend(report.owner.map(|owner| owner::line(&owner)));
        if report.pending > 0 {
            details.push(format!(
                "changes that wait in memory for the next writer: {}",
                report.pending
            ));
        }
        match &report.waiting {
            Some(Ok(waiting)) => {
                details.push(format!("commits that wait in the journal: {}", waiting.commits));
            }
            Some(Err(error)) => details.push(format!("journal cannot be replayed: {error}")),
            None => {}
        }
        let is_classic = matches!(report.consistency, Ok(Consistency::Classic));
        match &report.space {
            Ok(space) => details.extend(space::lines(space, is_classic)),
            // What keeps an image from being written is said above.
            Err(_) if is_classic || report.consistency.is_err() => {}
            Err(why) => details.push(format!("free space: not known: {why}")),
        }
        if details.is_empty() {
            return;
        }
        self.line(&[b"Format specific information:"]);
        for detail in details {
            self.line(&[b"    ", detail.as_bytes()]);
        }
    }

    fn qcow2(&mut self, report: &Qcow2Report) {
        let header = &report.header;
        let is_v3 = header.version() >= 3;
        let compression = match header.compression() {
            Qcow2Compression::Zlib => "zlib",
            Qcow2Compression::Zstd => "zstd",
        };
        let mut lines = format!(
            "Format specific information:\n    compat: {}\n    compression type: {compression}\n",
            header.compat()
        );
        if is_v3 {
            lines += &format!("    lazy refcounts: {}\n", header.has_lazy_refcounts());
        }
        self.0.extend_from_slice(lines.as_bytes());
        self.bitmaps(report);
        self.line(&[format!("    refcount bits: {}", header.refcount_bits()).as_bytes()]);
        let data_file = header.data_file();
        if let Some(name) = data_file.and_then(|file| file.name) {
            self.line(&[b"    data file: ", name]);
        }
        if let Some(encryption) = header.encryption() {
            for line in encryption::lines(encryption, report.luks.as_ref()) {
                self.line(&[b"    ", line.as_bytes()]);
            }
        }
        lines = String::new();
        if let Some(file) = data_file {
            lines += &format!("    data file raw: {}\n", file.is_raw);
        }
        if is_v3 {
            lines += &format!("    corrupt: {}\n", header.is_corrupt());
            lines += &format!("    extended l2: {}\n", header.has_extended_l2());
        }
        self.0.extend_from_slice(lines.as_bytes());
    }

    fn bitmaps(&mut self, report: &Qcow2Report) {
        if report.bitmaps.is_empty() {
            return;
        }
        self.line(&[b"    bitmaps:"]);
        for (i, bitmap) in report.bitmaps.iter().enumerate() {
            self.line(&[format!("        [{i}]:").as_bytes()]);
            self.line(&[b"            flags:"]);
            let flags = [("in-use", bitmap.in_use), ("auto", bitmap.auto)];
            for (j, (flag, _)) in flags.iter().filter(|(_, set)| *set).enumerate() {
                self.line(&[format!("                [{j}]: {flag}").as_bytes()]);
            }
            self.line(&[b"            name: ", &bitmap.name]);
            let granularity = bitmap.granularity;
            self.line(&[format!("            granularity: {granularity}").as_bytes()]);
        }
    }
}
