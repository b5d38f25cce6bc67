//! The internal snapshots of an image as `qemu-img` shows them, for people and as JSON.

use qed_convert::qcow2::Qcow2SnapshotInfo;
use serde_json::{Value, json};

use super::human_size;
use crate::failure::printed;

/// The list with its headings; nothing where there is no snapshot. Whatever a name has in it, it stays
/// in its line.
pub(crate) fn snapshot_list(snapshots: &[Qcow2SnapshotInfo]) -> Vec<u8> {
    if snapshots.is_empty() {
        return Vec::new();
    }
    let mut text = b"Snapshot list:
ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
"
    .to_vec();
    for snapshot in snapshots {
        let (id, name) = (padded(&snapshot.id, 7), padded(&snapshot.name, 16));
        let icount = snapshot.icount.map_or_else(String::new, |icount| icount.to_string());
        let rest = format!(
            " {:>8} {:>19} {:>15} {icount:>10}",
            human_size(snapshot.vm_state_size),
            date(snapshot.date_sec.into()),
            clock(snapshot.vm_clock_nsec),
        );
        text.extend(printed(&[id.as_slice(), b" ", &name, rest.as_bytes()].concat()));
        text.push(b'\n');
    }
    text
}

/// The same as JSON.
pub(crate) fn snapshots_json(snapshots: &[Qcow2SnapshotInfo]) -> Vec<Value> {
    let snapshot = |snapshot: &Qcow2SnapshotInfo| {
        json!({
            "icount": snapshot.icount,
            "vm-clock-nsec": snapshot.vm_clock_nsec % 1_000_000_000,
            "name": super::text(&snapshot.name),
            "date-sec": snapshot.date_sec,
            "date-nsec": snapshot.date_nsec,
            "vm-clock-sec": snapshot.vm_clock_nsec / 1_000_000_000,
            "id": super::text(&snapshot.id),
            "vm-state-size": snapshot.vm_state_size,
        })
    };
    snapshots.iter().map(snapshot).collect()
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
pub(crate) fn date(seconds: u64) -> String {
    let days = seconds / 86400 + 719_468;
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
            (u32::MAX.into(), "2106-02-07 06:28:15"),
            (u64::MAX, "584554051223-11-09 07:00:15"),
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
