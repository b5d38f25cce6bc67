//! The check, the reader and the writer agree about an image, with each other and with its bytes.

use std::sync::Arc;

use qed_check::{CheckError, CheckOptions, FindingKind, Place, Report, check};
use qed_core::{BackingGate, Image};
use qed_core::{
    ImageError, LockPolicy, OpenError, ReadContext, ReadOnlyImage, RecoveryPolicy, WriteContext,
};
use qed_io::Storage;
use qed_spec::{Features, Header, HeaderError};

use crate::branches::Branches;
use crate::oracles::compat::Kept;
use crate::oracles::guest::{Guest, Reader, Source};
use crate::oracles::reference::Reference;
use crate::sparse::SparseStorage;

/// Largest virtual disk that is opened, which is also where QEMU ends; a check takes larger ones.
const MAX_IMAGE_SIZE: u64 = (1 << 63) - 512;

/// The image as its bytes say; none if its header is refused, and then everybody refuses it.
///
/// # Panics
/// If somebody accepts a header that another refuses.
pub(crate) fn reference_of(
    storage: &Arc<SparseStorage>,
    gate: &dyn BackingGate,
) -> Option<Reference> {
    let content = storage.content();
    let first = content.bytes(0..content.len().min(512));
    match Header::parse(&first, content.len(), Features::CLASSIC) {
        Ok(header) if header.image_size() > MAX_IMAGE_SIZE => {
            let opened = open_for_reading(storage, gate);
            let is_too_large =
                HeaderError::ImageSizeTooLarge { found: header.image_size(), max: MAX_IMAGE_SIZE };
            assert!(matches!(opened, Err(OpenError::Header(error)) if error == is_too_large));
            None
        }
        Ok(header) => Some(Reference::new(&header, content)),
        // CONVERSION_HOLD: who opens such an image for writing ends the conversion, which has tests
        // of its own. JOURNAL_ACTIVE: what is wrong with the superblock may be told first, and what
        // a journal holds is for the target of that name.
        Err(HeaderError::UnsupportedFeature { bit: 32 | 36, .. }) => None,
        Err(error) => {
            let checked = check(&**storage, &CheckOptions::default());
            assert!(matches!(checked, Err(CheckError::Header(e)) if e == error), "{error:?}");
            let opened = open_for_reading(storage, gate);
            assert!(matches!(opened, Err(OpenError::Header(e)) if e == error), "{error:?}");
            None
        }
    }
}

/// A check finds what the bytes say, all of it and in order.
///
/// # Panics
/// If it does not.
pub(crate) fn assert_checked(
    storage: &dyn Storage,
    reference: &Reference,
    branches: &mut Branches,
) -> Report {
    let mut options = CheckOptions::default();
    options.findings_limit = usize::MAX;
    let report = check(storage, &options).expect("the image is small enough to be checked");
    for finding in &report.findings {
        branches.note("check", finding.kind);
    }
    let mut expected = reference.findings();
    let mut free = None;
    if Kept::frees_space(&reference.content) {
        let unnamed = expected.list.extract_if(.., |(number, ..)| matches!(number, 301 | 302));
        free = Some(unnamed.map(|(_, _, clusters)| clusters).sum());
    }
    assert_eq!(report.statistics.free_clusters, free, "free space");
    let found: Vec<(u16, u64, u64)> = report
        .findings
        .iter()
        .map(|finding| match finding.place {
            Place::L1Slot { at, .. } | Place::L2Slot { at, .. } => {
                (finding.kind.number(), at.get(), finding.value)
            }
            Place::Clusters { at, count } => (finding.kind.number(), at.get(), count),
            other => panic!("a finding about {other}"),
        })
        .collect();
    assert_eq!(found, expected.list, "findings");
    let statistics = report.statistics;
    let counted =
        (statistics.allocated_clusters, statistics.fragmented_clusters, statistics.zero_clusters);
    assert_eq!(counted, (expected.allocated, expected.fragmented, expected.zero), "statistics");
    assert_eq!(report.dirty, reference.is_dirty);
    for finding in report.findings.iter().filter(|finding| is_about_two(finding.kind)) {
        assert!(finding.first.is_some(), "nobody is named as the first in {finding:?}");
    }
    report
}

/// Opening for writing takes an image whose tables it can trust, and no other; it then shows what
/// the bytes say. What a check passes, opens.
///
/// # Panics
/// If it does not.
pub(crate) fn assert_opened(
    storage: &Arc<SparseStorage>,
    gate: &dyn BackingGate,
    reference: &Reference,
    report: &Report,
    branches: &mut Branches,
) {
    let before = storage.content();
    let copy = Arc::new(storage.copy());
    let context = WriteContext::new(gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    let opened = Image::open(Arc::<SparseStorage>::clone(&copy), &context);
    branches.note("open", opened.as_ref().map(drop));
    let kept = Kept::of(&before);
    branches.note("kept", &kept);
    let slots: Vec<_> =
        reference.tables.iter().filter(|table| table.slot < reference.l1_slots()).collect();
    let len = reference.table_clusters() * reference.cluster;
    let is_open = |value| reference.is_open_to(value, reference.table_clusters());
    let overlaps =
        |value: u64| slots.iter().filter(|other| other.value.abs_diff(value) < len).count();
    let is_bad = |value| !is_open(value) || overlaps(value) > 1;
    match opened {
        Err(OpenError::NeedsRecovery) => assert!(reference.is_dirty || kept.wants_check()),
        // A bitmap that begins anew has its own place, which a name may have taken.
        Err(OpenError::DirtyBitmap(_)) => assert!(kept.wants_check(), "{kept:?} has its place"),
        Err(OpenError::Mode(_) | OpenError::Superblock(_)) => assert_eq!(kept, Kept::Unknown),
        Err(OpenError::Image(ImageError::Corrupt(_))) => {
            assert!(slots.iter().any(|table| is_bad(table.value)), "good tables are refused");
            assert!(report.corruptions() > 0, "what is refused passes the check");
        }
        Err(error) => panic!("{error:?}"),
        Ok(image) => {
            assert!(!reference.is_dirty && !slots.iter().any(|table| is_bad(table.value)));
            assert!(!kept.wants_check() && kept != Kept::Unknown, "{kept:?} is written");
            let guest = Guest::new(reference, Reader::Vetted, None);
            guest.assert_shown_by(&image);
            let is_shown_whole = guest.runs().iter().all(|run| run.source != Source::Corrupt);
            assert!(report.corruptions() > 0 || is_shown_whole, "what passes the check is refused");
            image.close().expect("nothing is to be written");
        }
    }
    assert!(copy.content() == before || has_autoclear(reference), "opening changed the image");
}

/// Opens an image for reading.
pub(crate) fn open_for_reading(
    storage: &Arc<SparseStorage>,
    gate: &dyn BackingGate,
) -> Result<ReadOnlyImage, OpenError> {
    let context = ReadContext::new(gate, LockPolicy::Take);
    ReadOnlyImage::open(Arc::<SparseStorage>::clone(storage), &context)
}

/// Whether the header has autoclear bits, which opening for writing clears.
fn has_autoclear(reference: &Reference) -> bool {
    reference.content.bytes(32..40) != [0; 8]
}

/// Whether a finding is about something that somebody else has, too.
fn is_about_two(kind: FindingKind) -> bool {
    use FindingKind::{
        L1IntoHeader, L1IntoL1Table, L1OverlapsTable, L1SharedTable, L2Duplicate, L2IntoHeader,
        L2IntoL1Table, L2IntoL2Table,
    };
    matches!(
        kind,
        L1IntoHeader
            | L1IntoL1Table
            | L1OverlapsTable
            | L1SharedTable
            | L2Duplicate
            | L2IntoHeader
            | L2IntoL1Table
            | L2IntoL2Table
    )
}
