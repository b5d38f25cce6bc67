//! NEED_CHECK from the first flush to the close, recovery, autoclear bits, locks stated by callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use qed_core::{
    Checked, CrashLeft, GivenBacking, Image, LockPolicy, OpenError, ReadContext, ReadOnlyImage,
    Recovered, RecoveryHook, RecoveryPolicy, RefuseBacking, Shrink, WriteContext,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{
    Epoch, Features, Generation, GuestOffset, ImageUuid, SuperblockBuilder, SuperblockCopy,
};

use crate::support::{Bytes, context, new_storage, open, small_geometry};

const DISK: u64 = 1 << 20;

fn image() -> (Arc<MemoryStorage>, Image) {
    let storage = new_storage(small_geometry(), DISK, false);
    (storage.clone(), open(storage, &RefuseBacking))
}

fn marked(storage: &MemoryStorage) -> bool {
    let bytes = storage.to_vec();
    u64::from_le_bytes(bytes[16..24].try_into().unwrap()) & Features::NEED_CHECK.bits() != 0
}

fn set_bits(storage: &MemoryStorage, at: u64, bits: u64) {
    storage.write_at(&bits.to_le_bytes(), at).unwrap();
}

// spec-test: QED-CONS-02
#[test]
fn an_allocation_marks_the_image_until_a_flush_finds_nothing_pending() {
    let (storage, image) = image();
    image.flush().unwrap();
    assert!(!marked(&storage), "a flush without writes");
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    assert!(marked(&storage), "a flush of an allocation");
    image.flush().unwrap();
    assert!(!marked(&storage), "a flush with nothing pending");
    image.write_at(&[2; 512], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    assert!(!marked(&storage), "a flush of an in-place write");
}

// spec-test: QED-HDR-09
#[test]
fn the_rest_of_the_header_sector_outlives_every_change_of_the_header() {
    let storage = new_storage(small_geometry(), DISK, false);
    let mark = [0x5a; 512 - 64];
    storage.write_at(&mark, 64).unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    assert!(marked(&storage));
    image.resize(2 * DISK, Shrink::Refuse).unwrap();
    image.close().unwrap();
    assert!(!marked(&storage));
    assert_eq!(storage.to_vec()[64..512], mark);
}

#[test]
fn close_and_drop_clear_the_mark_and_cut_the_file() {
    for drop_it in [false, true] {
        let (storage, image) = image();
        image.write_at(&[1; 4096], GuestOffset::new(0)).unwrap();
        image.flush().unwrap();
        if drop_it {
            drop(image)
        } else {
            image.close().unwrap()
        }
        assert!(!marked(&storage));
        // Header, L1 (2), L2 (2), one data cluster.
        assert_eq!(storage.len().unwrap(), 6 * 4096);
    }
}

#[test]
fn maintain_flushes_after_five_seconds_and_clears_the_mark_five_later() {
    let (storage, image) = image();
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(image.maintain(start).unwrap(), None, "nothing waits");
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    assert_eq!(image.maintain(after(1)).unwrap(), Some(after(6)));
    assert_eq!(image.maintain(after(5)).unwrap(), Some(after(6)), "too early changes nothing");
    assert!(!marked(&storage));
    assert_eq!(image.maintain(after(6)).unwrap(), Some(after(11)));
    assert!(marked(&storage), "flushed");
    assert_eq!(image.maintain(after(11)).unwrap(), None);
    assert!(!marked(&storage), "cleared");
}

// spec-test: QED-CONS-03
#[test]
fn the_mark_stays_once_corruption_is_met() {
    let (storage, image) = image();
    image.write_at(&[1; 8192], GuestOffset::new(0)).unwrap();
    image.close().unwrap();
    // Slot 1 of the table behind header and L1 table names the L1 table.
    set_bits(&storage, 3 * 4096 + 8, 4096);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[2; 512], GuestOffset::new(8192)).unwrap();
    image.read_at(&mut [0; 512], GuestOffset::new(4096)).unwrap_err();
    image.flush().unwrap();
    image.flush().unwrap();
    assert!(marked(&storage), "flushed");
    assert_eq!(image.maintain(Instant::now()).unwrap(), None, "nothing is left to do");
    image.close().unwrap();
    assert!(marked(&storage), "closed");
}

#[test]
fn an_overlay_is_never_marked() {
    let storage = new_storage(small_geometry(), DISK, true);
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; 8192]))));
    let image = open(storage.clone(), &gate);
    image.write_at(&[1; 512], GuestOffset::new(512)).unwrap();
    image.flush().unwrap();
    assert!(!marked(&storage));
}

// spec-test: QED-CONS-01
#[test]
fn a_dirty_image_opens_for_writing_only_through_the_hook() {
    let storage = new_storage(small_geometry(), DISK, false);
    set_bits(&storage, 16, Features::NEED_CHECK.bits());
    let refused = Image::open(storage.clone(), &context(&RefuseBacking));
    assert!(matches!(refused, Err(OpenError::NeedsRecovery)));

    let with_hook = |hook: &RecoveryHook<'_>| {
        let recovery = RecoveryPolicy::Run(hook);
        let context = WriteContext { recovery, ..context(&RefuseBacking) };
        Image::open(storage.clone(), &context).map(drop)
    };
    let done = |checked| Ok(Recovered { checked, mended: 0 });
    let idle = with_hook(&|_, _| done(Checked::AllTables));
    assert!(matches!(idle, Err(OpenError::StillDirty)));
    let refused = with_hook(&|_, _| Err("cross-linked".into()));
    assert!(matches!(refused, Err(OpenError::Recovery(_))));
    let calls = AtomicU32::new(0);
    let mend = |storage: &dyn Storage, left: &CrashLeft| {
        assert_eq!(*left, CrashLeft::AllTables);
        calls.fetch_add(1, Ordering::Relaxed);
        storage.write_at(&0_u64.to_le_bytes(), 16)?;
        done(Checked::AllTables)
    };
    with_hook(&mend).unwrap();
    with_hook(&mend).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1, "a clean image runs no hook");

    set_bits(&storage, 16, Features::NEED_CHECK.bits());
    let checks_too_little = |storage: &dyn Storage, _: &CrashLeft| {
        storage.write_at(&0_u64.to_le_bytes(), 16)?;
        done(Checked::DirtyTables)
    };
    assert!(matches!(with_hook(&checks_too_little), Err(OpenError::StillDirty)));
}

// spec-test: QED-FEAT-01, QED-CONS-04
#[test]
fn every_feature_bit_that_is_not_classic_refuses_both_ways_to_open() {
    let hold = Features::CONVERSION_HOLD.bits().trailing_zeros();
    for bit in (3..64).filter(|bit| *bit != hold) {
        let storage = new_storage(small_geometry(), DISK, false);
        set_bits(&storage, 16, 1 << bit);
        let before = storage.to_vec();
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        for error in [
            ReadOnlyImage::open(storage.clone(), &read).unwrap_err(),
            Image::open(storage.clone(), &context(&RefuseBacking)).unwrap_err(),
        ] {
            assert!(error.to_string().contains(&format!("feature bit {bit}")), "{error}");
        }
        assert!(storage.to_vec() == before);
    }
}

// spec-test: QED-CONV-03
#[test]
fn what_holds_a_conversion_is_cleared_for_writing_and_kept_for_reading() {
    let storage = new_storage(small_geometry(), DISK, false);
    set_bits(&storage, 16, Features::CONVERSION_HOLD.bits());
    let before = storage.to_vec();
    let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
    ReadOnlyImage::open(storage.clone(), &read).unwrap();
    assert!(storage.to_vec() == before);
    let image = Image::open(storage.clone(), &context(&RefuseBacking)).unwrap();
    // Durable before anything else is written.
    assert_eq!(image.header().features(), Features::empty());
    assert!(storage.to_vec()[16..24] == [0; 8]);
}

// spec-test: QED-FEAT-03
#[test]
fn autoclear_bits_are_cleared_for_writing_and_kept_for_reading() {
    for bit in 0..64 {
        let storage = new_storage(small_geometry(), DISK, false);
        set_bits(&storage, 32, 1 << bit);
        set_bits(&storage, 24, 1 << bit);
        let before = storage.to_vec();
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        drop(ReadOnlyImage::open(storage.clone(), &read).unwrap());
        assert!(storage.to_vec() == before, "reading writes nothing");
        drop(open(storage.clone(), &RefuseBacking));
        let after = storage.to_vec();
        assert_eq!(after[32..40], [0; 8], "autoclear bit {bit}");
        assert_eq!(after[24..32], before[24..32], "compatible bits are kept");
    }
}

/// Superblocks between which there is no choice are read over, and nothing is written below them.
// spec-test: QED-SB-04, QED-SB-10, QED-CONS-04
#[test]
fn an_image_is_not_written_over_superblocks_without_a_choice() {
    let geometry = qed_spec::Geometry::new(65536, 4).unwrap();
    let superblock = |epoch| {
        let builder = SuperblockBuilder::new(ImageUuid::new([7; 16]), Epoch::new(epoch));
        builder.encode(Generation::FIRST)
    };
    // Version 2, with its checksum.
    let later = {
        let mut copy = [0; 4096];
        copy[..5].copy_from_slice(b"QEDX\x02");
        copy[8..12].copy_from_slice(&0x7051_bb9c_u32.to_le_bytes());
        copy
    };
    let pairs = [(superblock(1), superblock(2)), (later, [0; 4096]), (superblock(1), later)];
    for (number, (a, b)) in pairs.into_iter().enumerate() {
        let storage = new_storage(geometry, DISK, false);
        for (copy, bytes) in [(SuperblockCopy::A, a), (SuperblockCopy::B, b)] {
            storage.write_at(&bytes, copy.offset().get()).unwrap();
        }
        set_bits(&storage, 32, 1 << 40);
        let before = storage.to_vec();
        let error = Image::open(storage.clone(), &context(&RefuseBacking)).unwrap_err();
        assert!(matches!(error, OpenError::Superblock(_)), "{number}: {error}");
        assert!(storage.to_vec() == before, "{number}");
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        ReadOnlyImage::open(storage, &read).unwrap();
    }
}
