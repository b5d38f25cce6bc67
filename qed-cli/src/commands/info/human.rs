//! `info` for people, line by line as `qemu-img` has it.

use std::os::unix::ffi::OsStrExt;

use qed_convert::{Qcow2Compression, Qcow2SnapshotInfo};
use qed_core::Consistency;

use super::report::{ImageReport, Qcow2Report, QedReport, Specific};
use crate::failure::printed;
use crate::output::human_size;

/// The reports of a chain, with an empty line between images.
pub(super) fn text(reports: &[ImageReport]) -> Vec<u8> {
    let texts: Vec<Vec<u8>> = reports.iter().map(image_text).collect();
    texts.join(&b'\n')
}

fn image_text(report: &ImageReport) -> Vec<u8> {
    let mut text = Text::default();
    text.line(&[b"image: ", report.name.as_bytes()]);
    text.line(&[b"file format: ", report.format.name().as_bytes()]);
    let size = report.virtual_size;
    text.line(&[format!("virtual size: {} ({size} bytes)", human_size(size)).as_bytes()]);
    let disk_size = human_size(report.disk_size);
    text.line(&[format!("disk size: {disk_size}").as_bytes()]);
    if report.dirty {
        text.line(&[b"cleanly shut down: no"]);
    }
    if let Some(cluster_size) = report.cluster_size {
        text.line(&[format!("cluster_size: {cluster_size}").as_bytes()]);
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
        text.snapshots(&qcow2.snapshots);
        text.qcow2(qcow2);
    }
    if let Specific::Qed(qed) = &report.specific {
        text.qed(qed);
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
        let mut details = Vec::new();
        match &report.consistency {
            Ok(Consistency::Classic) => return,
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
        match &report.waiting {
            Some(Ok(waiting)) => {
                details.push(format!("commits that wait in the journal: {}", waiting.commits));
            }
            Some(Err(error)) => details.push(format!("journal cannot be replayed: {error}")),
            None => {}
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
        lines = format!("    refcount bits: {}\n", header.refcount_bits());
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

    fn snapshots(&mut self, snapshots: &[Qcow2SnapshotInfo]) {
        if snapshots.is_empty() {
            return;
        }
        self.line(&[b"Snapshot list:"]);
        self.line(&[
            b"ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT",
        ]);
        for snapshot in snapshots {
            let (id, name) = (padded(&snapshot.id, 7), padded(&snapshot.name, 16));
            let icount = snapshot.icount.map_or_else(String::new, |icount| icount.to_string());
            let rest = format!(
                " {:>8} {:>19} {:>15} {icount:>10}",
                human_size(snapshot.vm_state_size),
                date(snapshot.date_sec),
                clock(snapshot.vm_clock_nsec),
            );
            self.line(&[&id, b" ", &name, rest.as_bytes()]);
        }
    }
}

/// The bytes and spaces up to `width`.
fn padded(bytes: &[u8], width: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(width.max(bytes.len()), b' ');
    padded
}

/// Nanoseconds as hours, minutes, seconds and milliseconds.
fn clock(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let milliseconds = nanoseconds / 1_000_000 % 1000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:04}:{minutes:02}:{:02}.{milliseconds:03}", seconds % 60)
}

/// Seconds since 1970 as a date and time of day in UTC, by the civil calendar of 400-year cycles.
fn date(seconds: u32) -> String {
    let days = u64::from(seconds / 86400) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months counted from March, so that the leap day comes last.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let of_day = seconds % 86400;
    let (hours, minutes) = (of_day / 3600, of_day / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02}", of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_389_483, "2026-11-22 23:18:03"),
            (u32::MAX, "2106-02-07 06:28:15"),
        ];
        for (seconds, text) in cases {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn clocks_have_milliseconds() {
        assert_eq!(clock(0), "0000:00:00.000");
        assert_eq!(clock(3_723_004_000_000), "0001:02:03.004");
    }
}
