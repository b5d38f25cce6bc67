//! QEMU's view of an image beside what its bytes say: the same, but for the differences that the
//! specification lists.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use qed_spec::{Features, Header};
use tempfile::TempDir;

use crate::branches::Branches;
use crate::generators::image::backing_bytes;
use crate::oracles::guest::{Guest, Reader, Source};
use crate::oracles::reference::{Findings, Reference};
use crate::qemu::{Answer, qemu_img_limited};
use crate::sparse::SparseContent;

/// Longest disk that is converted: longer ones take time, and QEMU cannot walk some of them.
// Differs: QED-QEMU-19.
const MAX_CONVERTED: u64 = 64 << 20;
/// Bytes of the backing file.
const BACKING_LEN: u64 = 20 << 10;

/// QEMU opens, checks and reads the image as it should.
///
/// # Panics
/// If it does not, and no listed difference explains it.
pub(crate) fn assert_agrees(content: &SparseContent, branches: &mut Branches) {
    let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian");
    let backing = backing_bytes(BACKING_LEN);
    std::fs::write(folder.path().join("backing"), &backing).expect("room in memory");
    let image = folder.path().join("image");
    write(content, &image);
    let header = content.bytes(0..content.len().min(512));
    let parsed = Header::parse(&header, content.len(), Features::CLASSIC);
    let checked = run(&folder, &["check", "-q", "-f", "qed", "image"]);
    branches.note("qemu", checked.code);
    match parsed {
        Err(error) => {
            let is_listed = accepts_more(&header, content.len());
            let agrees = checked.code == Some(1) || is_listed;
            assert!(agrees, "{error:?} is accepted: {checked:?}");
        }
        Ok(header) if refuses_more(&header) => {}
        Ok(header) => {
            let reference = Reference::new(&header, content.clone());
            assert_check_agrees(&reference, &checked);
            assert_content_agrees(&folder, &reference, &header, &backing, branches);
        }
    }
}

/// Whether QEMU opens the image for a listed reason although it breaks a rule here.
fn accepts_more(header: &[u8], file_len: u64) -> bool {
    let field = |at: usize, len: usize| {
        let bytes = header.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
    };
    let (cluster, table, header_size) = (field(4, 4), field(8, 4), field(12, 4));
    let l1_end = field(40, 8).saturating_add(cluster.saturating_mul(table));
    // QED-QEMU-06, and a header area that is longer than the file.
    let area = header_size == 0 || header_size > file_len.div_ceil(cluster.max(1));
    // QED-QEMU-08.
    let rounded = l1_end > file_len && l1_end <= file_len.next_multiple_of(512);
    // QED-QEMU-07.
    let name = field(16, 8) & 1 == 1 && field(60, 4) == 0;
    area || rounded || name
}

/// Whether QEMU refuses, or cannot handle, images that are legal.
fn refuses_more(header: &Header) -> bool {
    // QED-QEMU-01, QED-QEMU-02; and disks of 2^63 bytes, which nobody opens.
    !header.geometry().opens_in_qemu() || header.image_size() > i64::MAX.unsigned_abs()
}

/// The check ends alike: sound, corrupt, or with leaks only.
fn assert_check_agrees(reference: &Reference, checked: &Answer) {
    let Findings { list, .. } = reference.findings();
    let has = |numbers: &[u16]| list.iter().any(|(number, ..)| numbers.contains(number));
    // QED-QEMU-04: leaks that are none.
    if reference.content.len() / reference.cluster >= reference.cluster - 1 {
        return;
    }
    // QED-QEMU-20: a last cluster that lacks little counts as whole, or as a leak.
    let lacks_little = |unit| reference.content.len().next_multiple_of(512).is_multiple_of(unit);
    if !reference.content.len().is_multiple_of(512) && lacks_little(reference.cluster) {
        return;
    }
    let is_corrupt = list.iter().any(|(number, ..)| matches!(number, 101..=107 | 201..=207));
    let leaks = has(&[301, 302]);
    let expected = if is_corrupt {
        2
    } else if leaks {
        3
    } else {
        0
    };
    assert_eq!(checked.code, Some(expected), "{list:x?}, {checked:?}");
}

/// The disk reads as its bytes say, or cannot be read.
fn assert_content_agrees(
    folder: &TempDir,
    reference: &Reference,
    header: &Header,
    backing: &[u8],
    branches: &mut Branches,
) {
    let has_any = |numbers: &[u16]| {
        reference.findings().list.iter().any(|(number, ..)| numbers.contains(number))
    };
    let is_followed = has_any(&[105, 205, 206]);
    let lacks_little = has_any(&[103, 203]) && !reference.content.len().is_multiple_of(512);
    let is_dangling = reference.is_dirty && has_any(&[102, 103, 202, 203]);
    // QED-QEMU-09, QED-QEMU-20, QED-QEMU-26.
    if is_followed || lacks_little || is_dangling || reference.image_size > MAX_CONVERTED {
        return;
    }
    let has_backing = header.features().contains(Features::BACKING_FILE);
    let guest = Guest::new(reference, Reader::AsItIs, has_backing.then_some(backing));
    let is_whole = guest.runs().iter().all(|run| run.source != Source::Corrupt);
    let converted = run(folder, &["convert", "-f", "qed", "-O", "raw", "image", "out"]);
    branches.note("convert", converted.code);
    let told = || {
        let findings = reference.findings().list;
        format!("{findings:x?}, dirty {}, {:x?}, {converted:?}", reference.is_dirty, guest.runs())
    };
    if !is_whole {
        // QED-QEMU-21.
        if converted.code == Some(0) && has_hidden(reference) {
            return;
        }
        assert_ne!(converted.code, Some(0), "bad entries are read: {}", told());
        return;
    }
    assert_eq!(converted.code, Some(0), "{}", told());
    let found = std::fs::read(folder.path().join("out")).expect("it was just written");
    let expected = guest.bytes(0..guest.len()).expect("all entries are good");
    let differ = found.iter().zip(&expected).position(|(found, want)| found != want);
    assert_eq!((found.len(), differ), (expected.len(), None), "{}", told());
}

/// Whether an entry past the end of the file continues a run of clusters that begins inside.
fn has_hidden(reference: &Reference) -> bool {
    reference.tables.iter().any(|table| {
        table.entries.windows(2).any(|pair| {
            let ((slot, value), (next_slot, next_value)) = (pair[0], pair[1]);
            let continues =
                slot + 1 == next_slot && value.wrapping_add(reference.cluster) == next_value;
            let end = next_value.saturating_add(reference.cluster);
            continues && end > reference.content.len()
        })
    })
}

fn run(folder: &TempDir, words: &[&str]) -> Answer {
    let words = words.iter().map(|word| match *word {
        "image" | "out" => folder.path().join(word).into_os_string(),
        word => word.into(),
    });
    qemu_img_limited(words)
}

/// Writes the image to a file, with its holes.
fn write(content: &SparseContent, path: &Path) {
    let file = File::create(path).expect("room in memory");
    file.set_len(content.len()).expect("room in memory");
    for (at, bytes) in content.stored() {
        file.write_all_at(bytes, at).expect("room in memory");
    }
}
