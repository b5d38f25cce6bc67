//! QEMU's view of an image beside ours: the same, but for the differences that the specification
//! lists.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use qed_check::{CheckError, CheckOptions, FindingKind, Report, check};
use qed_core::{GivenBacking, OpenError, RawFile, ReadOnlyImage, VirtualDisk};
use qed_io::MemoryStorage;
use qed_spec::{Features, GuestOffset};
use tempfile::TempDir;

use crate::branches::Branches;
use crate::generators::image::backing_bytes;
use crate::oracles::reference::Reference;
use crate::oracles::validity::open_for_reading;
use crate::qemu::{Answer, qemu_img_limited};
use crate::size::usize_of;
use crate::sparse::{SparseContent, SparseStorage};

/// Longest disk that is converted: longer ones take time, and QEMU cannot walk some of them.
// Differs: QED-QEMU-19.
const MAX_CONVERTED: u64 = 64 << 20;
/// Bytes of the backing file.
const BACKING_LEN: u64 = 20 << 10;

/// QEMU opens, checks and reads the image as we do.
///
/// # Panics
/// If it does not, and no listed difference explains it.
pub(crate) fn assert_agrees(storage: &Arc<SparseStorage>, branches: &mut Branches) {
    let content = storage.content();
    let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian");
    write(&content, &folder.path().join("image"));
    let backing = backing_bytes(BACKING_LEN);
    std::fs::write(folder.path().join("backing"), &backing).expect("room in memory");
    let raw = RawFile::open(Arc::new(MemoryStorage::new(backing))).expect("memory has a length");
    let gate = GivenBacking(Some(Arc::new(raw) as Arc<dyn VirtualDisk>));
    let checked = run(&folder, &["check", "-q", "-f", "qed", "image"]);
    branches.note("qemu", Exit::of(&checked));
    let report = match check(&**storage, &CheckOptions::default()) {
        Ok(report) => report,
        Err(CheckError::Header(error)) => {
            let is_listed = accepts_more(&content.bytes(0..64), content.len());
            let agrees = Exit::of(&checked) == Exit::Failed || is_listed;
            return assert!(agrees, "{error:?} is accepted: {checked:?}");
        }
        Err(error) => panic!("{error:?}"),
    };
    let image = match open_for_reading(storage, &gate) {
        Ok(image) => image,
        // Disks of 2^63 bytes. QED-QEMU-23.
        Err(OpenError::Header(_)) => return,
        Err(error) => panic!("{error:?}"),
    };
    // Incompatible features that QEMU does not know, CONVERSION_HOLD for one, keep it away.
    if !Features::CLASSIC.contains(image.header().features()) {
        return assert_eq!(Exit::of(&checked), Exit::Failed, "{checked:?}");
    }
    // QED-QEMU-01, QED-QEMU-02.
    if image.geometry().opens_in_qemu() {
        assert_check_agrees(&content, &image, &report, &checked);
        assert_content_agrees(&folder, &content, &image, &report, branches);
    }
}

/// How `qemu-img` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Sound,
    Failed,
    Corrupt,
    Leaks,
    Killed,
}

impl Exit {
    fn of(answer: &Answer) -> Self {
        match answer.code {
            Some(0) => Self::Sound,
            Some(1) => Self::Failed,
            Some(2) => Self::Corrupt,
            Some(3) => Self::Leaks,
            _ => Self::Killed,
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

/// The check ends alike: sound, corrupt, or with leaks only.
fn assert_check_agrees(
    content: &SparseContent,
    image: &ReadOnlyImage,
    report: &Report,
    checked: &Answer,
) {
    let cluster = image.geometry().cluster_size_bytes();
    // QED-QEMU-04: leaks that are none.
    if content.len() / cluster >= cluster - 1 {
        return;
    }
    // QED-QEMU-20: a last cluster that lacks little counts as whole, or as a leak.
    let lacks_little = content.len().next_multiple_of(512).is_multiple_of(cluster);
    if !content.len().is_multiple_of(512) && lacks_little {
        return;
    }
    // QED-QEMU-22: entries past the end of the disk are none. Free space is leaked to QEMU.
    let expected = match (report.corruptions(), report.unnamed_clusters()) {
        (0, 0) => Exit::Sound,
        (0, _) => Exit::Leaks,
        _ => Exit::Corrupt,
    };
    assert_eq!(Exit::of(checked), expected, "{:x?}, {checked:?}", report.findings);
}

/// The disk reads alike, or cannot be read.
fn assert_content_agrees(
    folder: &TempDir,
    content: &SparseContent,
    image: &ReadOnlyImage,
    report: &Report,
    branches: &mut Branches,
) {
    use FindingKind as Kind;
    let has = |kinds: &[Kind]| kinds.iter().any(|kind| report.counts.of(*kind) > 0);
    let is_followed = has(&[Kind::L1IntoL1Table, Kind::L2IntoL1Table, Kind::L2IntoL2Table]);
    let is_cut_off = has(&[Kind::L1InPartialTail, Kind::L2InPartialTail]);
    let lacks_little = is_cut_off && !content.len().is_multiple_of(512);
    let is_past_end = is_cut_off || has(&[Kind::L1PastEnd, Kind::L2PastEnd]);
    // QED-QEMU-09, QED-QEMU-20, QED-QEMU-26.
    if is_followed || lacks_little || (report.dirty && is_past_end) {
        return;
    }
    if image.image_size() > MAX_CONVERTED {
        return;
    }
    let converted = run(folder, &["convert", "-f", "qed", "-O", "raw", "image", "out"]);
    branches.note("convert", Exit::of(&converted));
    let mut bytes = vec![0xee; usize_of(image.image_size())];
    match image.read_at(&mut bytes, GuestOffset::new(0)) {
        Err(error) => {
            // QED-QEMU-21.
            let is_hidden = has_hidden(&Reference::new(&image.header(), content.clone()));
            let agrees = Exit::of(&converted) == Exit::Failed || is_hidden;
            assert!(agrees, "read in spite of {error:?}: {converted:?}");
        }
        Ok(()) => {
            let findings = &report.findings;
            assert_eq!(Exit::of(&converted), Exit::Sound, "{converted:?}, {findings:x?}");
            let found = std::fs::read(folder.path().join("out")).expect("it was just written");
            let differ = found.iter().zip(&bytes).position(|(found, want)| found != want);
            assert_eq!((found.len(), differ), (bytes.len(), None), "{findings:x?}");
        }
    }
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
