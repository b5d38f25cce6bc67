//! Generators and oracles for QED images: what tests and benchmarks of several crates share.
//!
//! A generator draws from arbitrary bytes, so that a fuzzer and a seeded test drive the same one
//! ([`from_seed`]). An oracle returns or panics.
#![forbid(unsafe_code)]

mod apply;
mod branches;
mod crash;
mod crc32c;
mod fabricate;
mod generators;
mod model;
mod operation;
mod oracles;
mod qemu;
mod random;
mod size;
mod sparse;
mod targets;

pub use apply::{apply, apply_to_image};
pub use branches::Branches;
pub use crash::campaign::{Campaign, Tally, crash_campaign, crash_workload};

pub use crash::failure::Failure;
pub use crash::faults::{ErrorCampaign, ErrorTally, error_campaign};
pub use crash::generate::{Backing, Family, Seeded};
pub use crash::log_writes::read_write_log;
pub use crash::rules::Rule;
pub use crash::states::{CrashPoint, crash_points};
pub use crash::stream::{StreamDisk, WriteStream};
pub use crash::subject::{
    CrashState, Seen, Subject, disk_of, each_state, flushes, raw_backing, recorded, run_of,
    same_disk, told, without_flush,
};
pub use crash::workload::{Beside, CRASH_CLUSTER, Mode, Step, Workload};
pub use fabricate::{Fabrication, Order, Spare, fabricate};
pub use generators::image_plan::{ImagePlan, Under};
pub use generators::operations::operations;
pub use model::Model;
pub use operation::{Operation, content};
pub use oracles::assert_reads_as;
pub use oracles::{assert_clean, assert_sound};
pub use qemu::{Answer, qemu_img, qemu_img_limited, qemu_io, qemu_io_command};
pub use random::{Random, from_seed, random_input};
pub use sparse::{SECTOR, Sector, SparseContent, SparseStorage};
pub use targets::{TARGETS, Target, fuzz};
