//! Which class each error has. That each has one, the compiler says.

use std::io;
use std::path::PathBuf;

use qed_core::{CreateError, GateError, OpenError, ResizeError};
use qed_io::{Clash, LockError, Permission};
use qed_spec::{BackingFormatError, BackingNameError, HeaderError, HostOffset, L1Index};

use super::ErrorKind::{
    Cancelled, Corrupt, Dirty, InvalidInput, Io, Locked, NoSpace, NotFound, Refused, Unsupported,
    WrongFormat,
};
use super::*;
use crate::chain::ImageFormat;
use crate::compare::Side;
use crate::convert::WriteAction;
use crate::in_place::Step;
use crate::qcow2::Qcow2Part;

const NAME: BackingNameError = BackingNameError::Empty;
const MAGIC: HeaderError = HeaderError::Magic { found: [0; 4] };
const WIDTH: Qcow2OptionError = Qcow2OptionError::RefcountBits { found: 3 };

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn held() -> LockError {
    LockError::Held { permission: Permission::Write, clash: Clash::InUse }
}

fn gone() -> BackingError {
    BackingError::new(0, NotFound, "gone")
}

fn compressed() -> Qcow2OptionError {
    Qcow2OptionError::Unsupported { option: "x".into() }
}

fn fault() -> Qcow2Corruption {
    let fault = Qcow2EntryFault::Unaligned;
    Qcow2Corruption::L1Entry { l1: L1Index::new(0), value: 3, fault }
}

#[track_caller]
fn check<const N: usize>(cases: [(ErrorKind, ErrorKind); N]) {
    for (index, (kind, want)) in cases.into_iter().enumerate() {
        assert_eq!(kind, want, "case {index}");
    }
}

#[test]
fn of_a_chain() {
    let path = PathBuf::new;
    let (image, backing, folder) = (path, path, path);
    let (name, format) = (String::new, ImageFormat::Qed);
    let lost = || qed_io::OpenError::Io(io::ErrorKind::NotFound.into());
    let stored = qed_spec::SuperblockError::Version { found: 2 };
    let (qed, qcow2) = (OpenError::NeedsRecovery, Qcow2OpenError::Lock(held()));
    let unknown = ChainError::FormatUnknown { image: image(), backing: backing(), format: name() };
    check([
        (ChainError::Open { path: path(), source: lost() }.kind(), NotFound),
        (ChainError::Lock { path: path(), source: held() }.kind(), Locked),
        (ChainError::Io { path: path(), source: full() }.kind(), NoSpace),
        (ChainError::Resolve { path: path(), source: full() }.kind(), NoSpace),
        (ChainError::NotInFormat { path: path(), format }.kind(), WrongFormat),
        (ChainError::QedHeader { path: path(), source: MAGIC }.kind(), WrongFormat),
        (ChainError::QedBackingName { path: path(), source: NAME }.kind(), Corrupt),
        (ChainError::StoredFormat { path: path(), source: stored }.kind(), Unsupported),
        (ChainError::Qed { path: path(), source: qed }.kind(), Dirty),
        (ChainError::Qcow2 { path: path(), source: qcow2 }.kind(), Locked),
        (ChainError::NoSnapshots { path: path(), format }.kind(), InvalidInput),
        (ChainError::Foreign { path: path(), format: "vmdk" }.kind(), Unsupported),
        (
            ChainError::Protocol { image: image(), protocol: name(), backing: backing() }.kind(),
            Unsupported,
        ),
        (unknown.kind(), Unsupported),
        (ChainError::FormatUnstated { image: image(), backing: backing() }.kind(), Refused),
        (ChainError::TooDeep { limit: 1 }.kind(), Refused),
        (ChainError::OutsideFolder { path: path(), folder: folder() }.kind(), Refused),
        (ChainError::Loop { path: path() }.kind(), Corrupt),
        (BackingNameChanged.kind(), Locked),
    ]);
}

#[test]
fn of_copying_and_comparing() {
    let read = |source: Box<dyn Error + Send + Sync>| ConvertError::Read { offset: 0, source };
    let write = ConvertError::Write { action: WriteAction::Data, offset: 0, source: full() };
    let image = || ImageError::WritesStopped;
    let (size, shrink) = (1, ResizeError::WouldShrink { from: 2, to: 1 });
    let side = Side::First;
    check([
        (read(gone().into()).kind(), NotFound),
        (read(image().into()).kind(), ErrorKind::ReadOnly),
        (read(full().into()).kind(), NoSpace),
        (read("no".into()).kind(), Io),
        (write.kind(), NoSpace),
        (ConvertError::Stream { offset: 0, source: full() }.kind(), NoSpace),
        (ConvertError::Compress { at: 0, source: full() }.kind(), NoSpace),
        (ConvertError::Image(image()).kind(), ErrorKind::ReadOnly),
        (ConvertError::OutputTooSmall { source_len: 2, target_len: 1 }.kind(), NoSpace),
        (ConvertError::TooLarge { limit: 1 }.kind(), NoSpace),
        (ConvertError::Qed(CreateError::BackingName(NAME)).kind(), InvalidInput),
        (ConvertError::Qcow2(WIDTH).kind(), InvalidInput),
        (ConvertError::Cancelled.kind(), Cancelled),
        (CompareError::Read { side, offset: 0, source: gone().into() }.kind(), NotFound),
        (CompareError::Cancelled.kind(), Cancelled),
        (CommitError::Grow { size, source: shrink }.kind(), Refused),
        (CommitError::GrowRaw { size, source: full() }.kind(), NoSpace),
        (CommitError::Copy(ConvertError::Cancelled).kind(), Cancelled),
        (MeasureError::Source(ConvertError::Cancelled).kind(), Cancelled),
        (MeasureError::Qed(CreateError::Io(full())).kind(), NoSpace),
        (MeasureError::Qcow2(compressed()).kind(), Unsupported),
        (RebaseError::Image(image()).kind(), ErrorKind::ReadOnly),
        (RebaseError::Old(gone()).kind(), NotFound),
        (RebaseError::New(gone()).kind(), NotFound),
        (RebaseError::Cancelled.kind(), Cancelled),
    ]);
}

#[test]
fn of_qcow2() {
    let (what, at) = (Qcow2Part::Header, HostOffset::new(0));
    let format = || Qcow2FormatError::Version { found: 9 };
    let gate = Qcow2OpenError::Gate { name: "b".into(), source: GateError::Refused };
    let past_end = Qcow2ReadError::OutOfRange { at: 9, len: 1, image_size: 0 };
    check([
        (Qcow2OpenError::Io { what, at, source: full() }.kind(), NoSpace),
        (Qcow2OpenError::Format(format()).kind(), Unsupported),
        (Qcow2OpenError::SnapshotNotFound { wanted: "s".into() }.kind(), NotFound),
        (gate.kind(), Refused),
        (Qcow2FormatError::Magic { found: [0; 4] }.kind(), WrongFormat),
        (Qcow2FormatError::Encrypted { found: 1 }.kind(), Unsupported),
        (Qcow2FormatError::ExternalDataFile.kind(), Unsupported),
        (Qcow2FormatError::BackingName(NAME).kind(), Corrupt),
        (Qcow2FormatError::RefcountOrder { found: 9 }.kind(), Corrupt),
        (past_end.kind(), InvalidInput),
        (Qcow2ReadError::Corrupt(fault()).kind(), Corrupt),
        (Qcow2ReadError::Io { what, at, source: full() }.kind(), NoSpace),
        (Qcow2ReadError::Decompressor(full()).kind(), NoSpace),
        (Qcow2ReadError::Backing(gone()).kind(), NotFound),
        (SetQcow2BackingError::Open(Qcow2OpenError::Lock(held())).kind(), Locked),
        (SetQcow2BackingError::Header(format()).kind(), InvalidInput),
        (SetQcow2BackingError::Name.kind(), InvalidInput),
        (SetQcow2BackingError::MarkedCorrupt.kind(), Corrupt),
        (SetQcow2BackingError::NoRoom.kind(), NoSpace),
        (SetQcow2BackingError::Io { step: "s", source: full() }.kind(), NoSpace),
    ]);
}

#[test]
fn of_qcow2_to_qed_in_place() {
    let format = BackingFormatError::Length { found: 0 };
    let io = InPlaceError::Io { step: Step::Read, at: Some(0), source: full() };
    check([
        (InPlaceError::Refused(Refusal::BlockDevice).kind(), Unsupported),
        (InPlaceError::Qcow2(Qcow2OpenError::Lock(held())).kind(), Locked),
        (InPlaceError::Read(fault().into()).kind(), Corrupt),
        (InPlaceError::Qed(MAGIC).kind(), WrongFormat),
        (io.kind(), NoSpace),
        (InPlaceError::Verify { cluster: 0, expected: 1, found: 2 }.kind(), Corrupt),
        (InPlaceError::Tables { expected: 1, found: 2 }.kind(), Corrupt),
        (InPlaceError::InDoubt.kind(), Io),
        (Refusal::FileTooLong { len: 1 }.kind(), Unsupported),
        (Refusal::BackingFormat(format).kind(), Unsupported),
        (Refusal::MarkedCorrupt.kind(), Corrupt),
        (Refusal::DirtySnapshots.kind(), Dirty),
        (Refusal::HeaderArea { end: 9 }.kind(), NoSpace),
        (Refusal::NothingToUndo.kind(), NotFound),
        (Refusal::NothingToFinalize.kind(), NotFound),
        (Refusal::Snapshots { count: 1 }.kind(), Refused),
        (Refusal::UnknownBytes { at: 0 }.kind(), Refused),
        (Refusal::Changed.kind(), Refused),
    ]);
}

#[test]
fn of_the_other_conversions_in_place() {
    let unreadable = || Box::new(Qcow2OpenError::Format(Qcow2FormatError::ExternalDataFile));
    let plan = || PlanFault::NotAPlan { plan: "p".into() };
    check([
        (InPlaceError::Open(OpenError::NeedsRecovery).kind(), Dirty),
        (InPlaceError::Image(ImageError::WritesStopped).kind(), ErrorKind::ReadOnly),
        (InPlaceError::Options(WIDTH).kind(), InvalidInput),
        (Refusal::SharedCluster { host: 1 }.kind(), Corrupt),
        (Refusal::CanBeUndone.kind(), Refused),
        (Refusal::BackingFormatUnknown.kind(), InvalidInput),
        (Refusal::NoRoomForName.kind(), NoSpace),
        (InPlaceError::Unreadable(unreadable()).kind(), Unsupported),
        (InPlaceError::UnreadableTable(gone()).kind(), NotFound),
        (InPlaceError::Differ { at: 0 }.kind(), Corrupt),
        (Refusal::EmptyFile.kind(), InvalidInput),
        (Refusal::NotRaw { format: "qed" }.kind(), WrongFormat),
        (InPlaceError::Plan(plan()).kind(), Refused),
        (InPlaceError::Lock(held()).kind(), Locked),
        (InPlaceError::Amend(OpenError::NeedsRecovery.into()).kind(), Dirty),
        (Refusal::HasBacking.kind(), Unsupported),
        (Refusal::LooksLikeQed.kind(), Refused),
    ]);
}
