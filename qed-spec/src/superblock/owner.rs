//! Who has an image open for writing. Knows nothing of clocks, hosts and random numbers, nor of what
//! follows from an owner that is another one.

use core::num::NonZeroU64;

use zerocopy::little_endian::U64;

use crate::len::wide;
use crate::parse;
use crate::raw::RawOwner;
use crate::superblock::error::ImageOwnerError;

/// The owner that an image says it has: whoever opened it for writing last, or nobody if that one
/// closed it.
///
/// The token alone decides whether two owners are one; the rest is for people and for what a reboot
/// means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageOwner {
    token: Option<NonZeroU64>,
    since: u64,
    boot_id: [u8; 16],
    host_name: [u8; 16],
}

impl ImageOwner {
    /// Bytes of the payload.
    pub const LEN_BYTES: usize = size_of::<RawOwner>();

    /// Bytes of a host name that are kept.
    pub const HOST_NAME_LEN_BYTES: usize = 16;

    /// Nobody, and nothing about who it was before.
    pub const NOBODY: Self = Self { token: None, since: 0, boot_id: [0; 16], host_name: [0; 16] };

    /// An owner since `since` seconds after 1970, in the run `boot_id` of the kernel of the host
    /// `host_name`, of which the bytes before the first zero are kept, 16 at most.
    #[must_use]
    pub fn new(token: NonZeroU64, since: u64, boot_id: [u8; 16], host_name: &[u8]) -> Self {
        let mut kept = [0; Self::HOST_NAME_LEN_BYTES];
        let name = host_name.iter().take_while(|byte| **byte != 0);
        kept.iter_mut().zip(name).for_each(|(to, byte)| *to = *byte);
        Self { token: Some(token), since, boot_id, host_name: kept }
    }

    /// Parses the payload of the section.
    ///
    /// # Errors
    /// A payload of another length, or a host name that goes on behind a zero byte.
    // spec: QED-HAND-02
    pub fn parse(payload: &[u8]) -> Result<Self, ImageOwnerError> {
        let Ok(([], raw)) = parse::leaf::<RawOwner>(payload) else {
            return Err(ImageOwnerError::Length { found: wide(payload.len()) });
        };
        let bytes = (0..).zip(raw.host_name);
        if let Some((at, _)) = bytes.skip_while(|(_, byte)| *byte != 0).find(|(_, byte)| *byte != 0)
        {
            return Err(ImageOwnerError::HostName { at });
        }
        Ok(Self {
            token: NonZeroU64::new(raw.token.get()),
            since: raw.since.get(),
            boot_id: raw.boot_id,
            host_name: raw.host_name,
        })
    }

    /// The payload; [`ImageOwner::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN_BYTES] {
        zerocopy::transmute!(RawOwner {
            token: U64::new(self.token.map_or(0, NonZeroU64::get)),
            since: U64::new(self.since),
            boot_id: self.boot_id,
            host_name: self.host_name,
        })
    }

    /// The random number that this owner chose; none for nobody.
    #[must_use]
    pub const fn token(&self) -> Option<NonZeroU64> {
        self.token
    }

    /// Since when, in seconds since 1970 by the clock of the owner's host.
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// The run of the kernel of the owner's host: another one after each boot.
    #[must_use]
    pub const fn boot_id(&self) -> &[u8; 16] {
        &self.boot_id
    }

    /// The name of the owner's host, cut to 16 bytes; any bytes but zeros, often UTF-8, perhaps none.
    #[must_use]
    pub fn host_name(&self) -> &[u8] {
        self.host_name.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

const _: () = assert!(ImageOwner::LEN_BYTES == 48);
