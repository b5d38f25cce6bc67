//! Where an image on a block device ends, which no file length says. Knows nothing of when the end
//! is raised, nor of what a device holds behind it.

use zerocopy::little_endian::U64;

use crate::header::Header;
use crate::len::wide;
use crate::parse;
use crate::raw::RawPhysicalSize;
use crate::superblock::error::PhysicalSizeError;

/// The end of the space that was handed out on a block device, and the device that it was said of.
///
/// A hint, as all is that an autoclear bit stands for: the tables are the truth. A value keeps the
/// rules of the section; whether the device still has these bytes, its owner asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysicalSize {
    physical_size: u64,
    device_size: u64,
}

impl PhysicalSize {
    /// Bytes of the payload.
    pub const LEN_BYTES: usize = size_of::<RawPhysicalSize>();

    /// An image with this header whose space ends at byte `physical_size` of a device of
    /// `device_size` bytes.
    ///
    /// # Errors
    /// The rule that it breaks: no whole clusters, an end before that of the L1 table, or one that
    /// the device has not.
    // spec: QED-DEV-07
    pub fn new(
        physical_size: u64,
        device_size: u64,
        header: &Header,
    ) -> Result<Self, PhysicalSizeError> {
        let geometry = header.geometry();
        if !physical_size.is_multiple_of(geometry.cluster_size_bytes()) {
            return Err(PhysicalSizeError::Unaligned { physical_size });
        }
        // The L1 table lies behind the header area.
        let l1_table_offset = header.fields().l1_table_offset.get();
        let l1_end = l1_table_offset.saturating_add(geometry.table_size_bytes());
        if physical_size < l1_end {
            return Err(PhysicalSizeError::InsideRoots { physical_size, l1_end });
        }
        if physical_size > device_size {
            return Err(PhysicalSizeError::PastDevice { physical_size, device_size });
        }
        Ok(Self { physical_size, device_size })
    }

    /// Parses the payload of the section in an image with this header.
    ///
    /// # Errors
    /// As [`PhysicalSize::new`], and a payload of another length.
    // spec: QED-DEV-07
    pub fn parse(payload: &[u8], header: &Header) -> Result<Self, PhysicalSizeError> {
        match parse::leaf::<RawPhysicalSize>(payload) {
            Ok(([], raw)) => Self::new(raw.physical_size.get(), raw.device_size.get(), header),
            _ => Err(PhysicalSizeError::Length { found: wide(payload.len()) }),
        }
    }

    /// The payload; [`PhysicalSize::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN_BYTES] {
        zerocopy::transmute!(RawPhysicalSize {
            physical_size: U64::new(self.physical_size),
            device_size: U64::new(self.device_size),
        })
    }

    /// Byte after the last one handed out, a multiple of the cluster size.
    #[must_use]
    pub const fn physical_size(&self) -> u64 {
        self.physical_size
    }

    /// Bytes of the device when all tables were last known to lie below the physical size.
    #[must_use]
    pub const fn device_size(&self) -> u64 {
        self.device_size
    }
}

const _: () = assert!(PhysicalSize::LEN_BYTES == 16);
