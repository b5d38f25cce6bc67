//! The pending log: what a process that dies leaves of the changes that it acknowledged and no flush had
//! taken yet, for the next process on the same host to find.
//!
//! A log is a file in a `tmpfs`, mapped by the process that has the image open for writing. Before a
//! change of L2 entries is published it is stored there ([`Room::append`]); a flush that has made all
//! changes before a number durable lets them go ([`PendingLog::is_home`]). The death of the process
//! leaves the memory as it is; a reboot takes it away, and with it no more than what was not flushed.
//!
//! Knows entries as numbers, not what they map; believes nothing: [`LogPlace::find`] tells what a log is bound
//! to, and whoever opens the image judges that, and the records. docs/format.md has the bytes
//! and rules (QED-PEND-01 to QED-PEND-14), docs/write-ordering.md the orders.
#![forbid(unsafe_code)]

mod log;
mod place;
mod ring;
mod sync;

pub use log::{MIN_SLOTS, PendingLog, Room, SLOTS};
pub use place::{FileId, LogPlace, PlaceError, boot_id};
