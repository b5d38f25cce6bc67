//! Each kind of disk as a block device, held against plain bytes.

use std::ops::ControlFlow;
use std::sync::Arc;

use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_export::{
    Allocation, BlockDevice, DeviceError, Durability, QedDisk, RawDisk, Space, Speed, WriteThrough,
    Zeroing,
};
use qed_io::{
    Existing, Fault, Faulty, FileStorage, ImageLock, MemoryStorage, NewFileOptions, Piece,
    PieceMut, Repeat, RequestKind, SharedSlice, Storage,
};
use qed_spec::GuestOffset;

use crate::client::{SIZE, qed_disk, raw_disk};

const LATER: Durability = Durability::AfterFlush;
const HOLES: Zeroing = Zeroing { space: Space::MayHaveHoles, speed: Speed::Any, durability: LATER };

#[test]
fn every_disk_keeps_what_is_written_and_zeroed() {
    for disk in [qed_disk(), raw_disk()] {
        let mut model = vec![0_u8; usize::try_from(SIZE).unwrap()];
        let stored = Zeroing { space: Space::Allocated, ..HOLES };
        let at_once = Zeroing { durability: Durability::AtReturn, ..stored };
        disk.write_at(&[7; 200_000], 1000, LATER).unwrap();
        model[1000..201_000].fill(7);
        for (at, len, how) in [(500, 1000, HOLES), (70_000, 1, stored), (300_000, 99_000, at_once)]
        {
            disk.write_zeroes(at, len, how).unwrap();
            model[usize::try_from(at).unwrap()..][..usize::try_from(len).unwrap()].fill(0);
        }
        disk.trim(600_000, 1000, Durability::AtReturn).unwrap();
        disk.write_at(&[9; 3], SIZE - 3, Durability::AtReturn).unwrap();
        model[usize::try_from(SIZE - 3).unwrap()..].fill(9);
        let mut shared = vec![5; 100_000];
        let pieces = [Piece::Own(&[4; 77]), Piece::Shared(SharedSlice::from(&mut shared[..]))];
        disk.write_vectored_at(&pieces, 150_000, Durability::AtReturn).unwrap();
        model[150_000..150_077].fill(4);
        model[150_077..250_077].fill(5);
        let mut found = vec![1; model.len()];
        disk.read_at(&mut found, 0).unwrap();
        assert!(found == model, "{disk:?}");
        found.fill(1);
        let (shared, own) = found.split_at_mut(180_001);
        let mut pieces = [PieceMut::Shared(SharedSlice::from(shared)), PieceMut::Own(own)];
        disk.read_vectored_at(&mut pieces, 0).unwrap();
        assert!(found == model, "{disk:?} by pieces");
        // Space that was asked for is there.
        assert_eq!(disk.extent_at(300_000, 1).unwrap().allocation, Allocation::Data);
        let (mut at, mut extents) = (0, 0);
        while at < SIZE {
            at += disk.extent_at(at, SIZE - at).unwrap().len;
            extents += 1;
        }
        assert_eq!(at, SIZE, "{extents} extents");
        disk.flush().unwrap();
        disk.close().unwrap();
    }
}

#[test]
fn ranges_past_the_end_are_refused_and_change_nothing() {
    for disk in [qed_disk(), raw_disk()] {
        for (at, len) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (0, SIZE + 1)] {
            let bytes = vec![1; usize::try_from(len).unwrap()];
            let mut buf = bytes.clone();
            let results = [
                disk.read_at(&mut buf, at),
                disk.read_vectored_at(&mut [PieceMut::Own(&mut []), PieceMut::Own(&mut buf)], at),
                disk.write_at(&bytes, at, LATER),
                disk.write_vectored_at(&[Piece::Own(&[]), Piece::Own(&bytes)], at, LATER),
                disk.write_zeroes(at, len, HOLES),
                disk.write_zeroes(at, len, Zeroing { space: Space::Allocated, ..HOLES }),
                disk.trim(at, len, LATER),
            ];
            for result in results {
                assert!(
                    matches!(result, Err(DeviceError::OutOfRange { .. })),
                    "{at} {len}: {result:?}"
                );
            }
        }
        assert!(matches!(disk.extent_at(SIZE, 1), Err(DeviceError::OutOfRange { .. })));
        let mut all = vec![1; usize::try_from(SIZE).unwrap()];
        disk.read_at(&mut all, 0).unwrap();
        assert!(all.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_full_file_system_and_a_failing_one_are_told_apart() {
    for (fault, is_full) in [(Fault::NoSpace, true), (Fault::Io, false)] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        create(&*storage, &CreateOptions::new(SIZE)).unwrap();
        let faulty = Arc::new(Faulty::new(storage));
        let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
        let image = Image::open(faulty.clone(), &context).unwrap();
        let disk = QedDisk::new(image);
        faulty.fail_nth(faulty.requests(), fault, Repeat::Always);
        let failed = disk.write_at(&[1; 512], 0, LATER).unwrap_err();
        assert_eq!(matches!(failed, DeviceError::NoSpace(_)), is_full, "{failed:?}");
        faulty.heal();
        let raw = RawDisk::open(faulty.clone()).unwrap();
        faulty.fail_nth(faulty.requests(), fault, Repeat::Always);
        let failed = raw.write_at(&[1; 512], 0, LATER).unwrap_err();
        assert_eq!(matches!(failed, DeviceError::NoSpace(_)), is_full, "{failed:?}");
        faulty.heal();
    }
}

#[test]
fn what_changes_a_disk_that_writes_through_fails_where_it_cannot_be_made_durable() {
    type Change = fn(&dyn BlockDevice) -> Result<(), DeviceError>;
    let changes: [Change; 4] = [
        |disk| disk.write_at(&[1; 512], 0, LATER),
        |disk| disk.write_vectored_at(&[Piece::Own(&[1; 512])], 0, LATER),
        |disk| disk.write_zeroes(0, 512, HOLES),
        |disk| disk.trim(0, 512, LATER),
    ];
    for change in changes {
        let faulty = Arc::new(Faulty::new(Arc::new(MemoryStorage::new(vec![0; 1 << 20]))));
        let disk = WriteThrough::new(Arc::new(RawDisk::open(faulty.clone()).unwrap()));
        change(&disk).unwrap();
        let is_flush = |request: &qed_io::Request| request.kind == RequestKind::Flush;
        faulty.fail_when(is_flush, Fault::Io, Repeat::Always);
        change(&disk).unwrap_err();
    }
}

#[test]
fn a_raw_disk_gives_back_the_blocks_that_lie_in_a_trim_or_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    for (name, gives_back) in [("gives", true), ("keeps", false)] {
        let new =
            NewFileOptions { existing: Existing::Refuse, lock: ImageLock::NONE, direct: false };
        let file = FileStorage::create(folder.path().join(name), new).unwrap();
        // The last block of the disk is none.
        file.write_at(&[7; (256 << 10) + 512], 0).unwrap();
        let file: Arc<dyn Storage> = Arc::new(file);
        let disk = RawDisk::open(Arc::clone(&file)).unwrap();
        let disk = if gives_back { disk.giving_back() } else { disk };
        disk.trim((64 << 10) - 1, (64 << 10) + 2, LATER).unwrap();
        disk.trim(252 << 10, (4 << 10) + 512, Durability::AtReturn).unwrap();
        disk.trim(1, 4095, LATER).unwrap();
        let mut found = vec![0; (256 << 10) + 512];
        disk.read_at(&mut found, 0).unwrap();
        for (at, byte) in found.iter().enumerate() {
            let is_trimmed = (64 << 10..128 << 10).contains(&at) || at >= 252 << 10;
            assert_eq!(*byte, if is_trimmed && gives_back { 0 } else { 7 }, "{name}: {at}");
        }
        let extent = disk.extent_at(64 << 10, 64 << 10).unwrap();
        assert_eq!((extent.allocation == Allocation::Hole, extent.len >= 64 << 10), {
            (gives_back, true)
        });
        if gives_back {
            let before = file.allocated_len().unwrap();
            disk.write_zeroes(0, 64 << 10, HOLES).unwrap();
            assert_eq!(file.allocated_len().unwrap(), before - (64 << 10));
        }
    }
}

#[test]
fn a_hole_under_a_cluster_is_told_until_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let storage = FileStorage::create(
        folder.path().join("disk.qed"),
        NewFileOptions { existing: Existing::Refuse, lock: ImageLock::NONE, direct: false },
    );
    let storage: Arc<dyn Storage> = Arc::new(storage.unwrap());
    create(&*storage, &CreateOptions::new(SIZE)).unwrap();
    let open = || {
        let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
        Image::open(storage.clone(), &context).unwrap()
    };
    let disk = QedDisk::new(open());
    disk.write_at(&[1; 512 << 10], 0, LATER).unwrap();
    disk.close().unwrap();
    let image = open();
    let place = image.map(GuestOffset::new(0), 512 << 10).unwrap();
    let qed_core::ExtentKind::Data(host) = place.kind else { panic!("{place:?}") };
    assert_eq!(place.len, 512 << 10);
    let (host, cut) = (host.get(), 64 << 10..448 << 10);
    assert!(storage.punch_hole(host + cut.start..host + cut.end).unwrap());

    let disk = QedDisk::new(image);
    let told = |disk: &QedDisk| {
        let mut told = Vec::new();
        disk.each_extent(0..512 << 10, &mut |extent| {
            told.push((extent.len >> 10, extent.allocation));
            ControlFlow::Continue(())
        })
        .unwrap();
        told
    };
    use Allocation::{Data, Zero};
    assert_eq!(told(&disk), [(64, Data), (384, Zero), (64, Data)]);
    disk.write_at(&[2; 4096], 128 << 10, LATER).unwrap();
    assert_eq!(told(&disk), [(64, Data), (64, Zero), (4, Data), (316, Zero), (64, Data)]);
    disk.close().unwrap();
}
