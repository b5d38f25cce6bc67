//! Streaming conversion between raw, QED and QCOW2 disk images, comparison and measuring.
//!
//! [`convert`] copies any [`qed_core::VirtualDisk`] to a [`Target`], sparse on both sides and on
//! several threads.
#![forbid(unsafe_code)]

mod chain;
mod commit;
mod compare;
mod convert;
mod in_place;
mod jobs;
mod kind;
mod measure;
mod progress;
mod qcow2;
mod qcow2_backing;
mod rebase;
mod target;
mod zero;

pub use chain::{
    BackingNameChanged, Chain, ChainError, ChainOptions, FormatSource, ImageFormat, Layer,
    LayerHeader, MAX_CHAIN_DEPTH, OpenedBacking, Recognised, TrustMagic,
};
pub use commit::{CommitBase, CommitError, commit};
pub use compare::{CompareError, CompareOptions, Comparison, Side, compare};
pub use convert::{ConvertError, ConvertOptions, Order, Summary, WriteAction, convert};
pub use in_place::{
    Dropped, FromRawOptions, FromRawPlan, InPlaceError, InPlacePlan, PlanFault, PlanFile,
    PlanStore, Refusal, Step, ToQcow2Options, ToQcow2Plan, ToQed, ToQedOptions, ToRawOptions,
    ToRawPlan, finalize, plan_qed_to_qcow2, plan_qed_to_raw, plan_raw_to_qed, qed_to_qcow2,
    qed_to_raw, raw_to_qed, undo,
};
pub use measure::{Measure, MeasureError, MeasureTarget, measure, measure_size, qcow2_bitmaps_len};
pub use progress::{NoProgress, Progress};
pub use qcow2::{
    LuksHeader, LuksSlot, Qcow2Bitmap, Qcow2Corruption, Qcow2DataFile, Qcow2Encryption,
    Qcow2EntryFault, Qcow2FormatError, Qcow2Header, Qcow2Image, Qcow2OpenError, Qcow2Options,
    Qcow2Part, Qcow2ReadError, Qcow2SnapshotInfo, Qcow2SnapshotSelector, Qcow2StreamFault,
    UnknownFeature,
};
pub use qcow2_backing::{Qcow2Backing, SetQcow2BackingError, set_qcow2_backing};
pub use rebase::{RebaseError, RebaseOptions, rebase};
pub use target::{
    NewBacking, Preallocation, Qcow2Compression, Qcow2CreateOptions, Qcow2OptionError,
    Qcow2Version, Target, TargetContent, create_qcow2,
};
pub use zero::is_zero;
