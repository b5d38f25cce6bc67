//! What a caller states of itself to open an image for writing: whose image it is from then on, and what
//! outlives the process.

use std::num::NonZeroU64;

use qed_pending::LogPlace;

/// Who opens an image for writing. Names, times and random numbers are the caller's: this crate asks no
/// system.
#[derive(Debug, Clone, Copy)]
pub struct Ownership<'a> {
    /// The boot of this host, see [`qed_pending::boot_id`]; zeros where the system does not tell, and then an
    /// image that was not closed by its owner is taken for one whose log is lost.
    pub boot_id: [u8; 16],
    /// The name of this host, of which the image keeps 16 bytes.
    pub host_name: &'a [u8],
    /// Seconds since 1970.
    pub since: u64,
    /// Random, another one for each open.
    pub token: NonZeroU64,
    /// Random, for the checksums of a new pending log.
    pub salt: [u64; 2],
    /// Where the pending log of the image is, if it can have one.
    pub log: Option<&'a LogPlace>,
    /// What the image gets.
    pub keeps: Keeps,
    /// What becomes of an image whose log is lost.
    pub lost: PendingLost,
    /// Other hosts can write the image, and locks may not reach them.
    pub shared: bool,
    /// The owner that the image names on another host is known not to write any more.
    pub take_over: bool,
}

/// What an image that is open for writing says and keeps of its owner.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing: whatever a dead process left is made durable, and what this process has not flushed ends
    /// with it.
    #[default]
    Nothing,
    /// The image names its owner, and a pending log has what no flush has taken, where there is a place for
    /// it: what was acknowledged outlives the process.
    Owner,
}

/// What becomes of an image whose last owner died in this run of the kernel, and whose pending log is gone
/// or not to be believed: writes that were acknowledged may be missing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum PendingLost {
    /// It does not open.
    #[default]
    Refuse,
    /// It opens, and the first flush fails, so that whoever wrote hears of it.
    FailFlush,
    /// It opens.
    Accept,
}
