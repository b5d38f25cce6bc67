//! What the server tells a driver of the disk: feature bits and the configuration space.

use std::sync::atomic::{AtomicBool, Ordering};

use super::chain::MAX_DESCRIPTORS;
use super::ring::MAX_QUEUE_SIZE;
use super::wire::{ID_BYTES, SECTOR_BYTES, feature};
use crate::device::BlockDevice;

/// Bytes of the configuration space that mean something; a frontend may ask for more, which are zeros.
const CONFIG_BYTES: usize = 60;
/// The most that a frontend may ask for, by the protocol.
pub(super) const MAX_CONFIG_BYTES: usize = 256;
/// Where the one byte is that a driver may change.
const WRITE_CACHE: usize = 32;
/// What the pages of file systems and of the file below are.
const PAGE_BYTES: u64 = 4096;

/// Most sectors of one segment to discard, and most segments: 64 GiB at a time.
pub(super) const MAX_DISCARD_SECTORS: u32 = 4 << 20;
pub(super) const MAX_DISCARD_SEGMENTS: usize = 32;
/// Most sectors of the one segment to zero, which may have to be written: 256 MiB.
pub(super) const MAX_ZERO_SECTORS: u32 = 512 << 10;
pub(super) const MAX_ZERO_SEGMENTS: usize = 1;

/// What whoever starts a server decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostOptions {
    /// The most queues that a guest may have, 1 to 256; it has a thread for each that it uses.
    pub queues: u16,
    /// Descriptors of a queue as the VMM makes it: a request may have two segments less. A power of two
    /// from 4 to [`MAX_QUEUE_SIZE`]; larger queues are served as well.
    pub queue_size: u16,
    /// The serial number that the guest sees; the first 20 bytes count.
    pub serial: String,
}

impl Default for VhostOptions {
    /// 64 queues of 128 descriptors, what QEMU makes by itself, and no serial number.
    fn default() -> Self {
        Self { queues: 64, queue_size: 128, serial: String::new() }
    }
}

impl VhostOptions {
    /// Whether the numbers are in their bounds.
    #[must_use]
    pub fn are_valid(&self) -> bool {
        (1..=256).contains(&self.queues)
            && (4..=MAX_QUEUE_SIZE).contains(&self.queue_size)
            && self.queue_size.is_power_of_two()
    }

    /// The serial number as a driver gets it.
    pub(super) fn id(&self) -> [u8; ID_BYTES] {
        let mut id = [0; ID_BYTES];
        let len = self.serial.len().min(ID_BYTES);
        id[..len].copy_from_slice(&self.serial.as_bytes()[..len]);
        id
    }
}

/// The features that the server offers for a disk.
pub(super) fn features(device: &dyn BlockDevice) -> u64 {
    use feature::*;
    let always = VERSION_1
        | PROTOCOL
        | LOG_ALL
        | INDIRECT
        | EVENT_INDEX
        | SEG_MAX
        | BLOCK_SIZE
        | TOPOLOGY
        | FLUSH
        | CONFIG_WCE
        | MULTI_QUEUE;
    always | if device.is_read_only() { READ_ONLY } else { DISCARD | WRITE_ZEROES }
}

/// The configuration space, little-endian as virtio 1 has it.
pub(super) fn space(
    device: &dyn BlockDevice,
    options: &VhostOptions,
    has_write_cache: bool,
) -> [u8; MAX_CONFIG_BYTES] {
    let sizes = device.block_sizes();
    let block = u64::from(sizes.minimum).clamp(SECTOR_BYTES, PAGE_BYTES);
    let preferred = u64::from(sizes.preferred).max(PAGE_BYTES);
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).unwrap_or(u32::MAX);
    let segments = usize::from(options.queue_size).min(MAX_DESCRIPTORS) - 2;

    let mut space = [0; MAX_CONFIG_BYTES];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(device.size() / SECTOR_BYTES).to_le_bytes());
    put(12, &u32::try_from(segments).unwrap_or(u32::MAX).to_le_bytes());
    put(20, &u32::try_from(block).unwrap_or(u32::MAX).to_le_bytes());
    // Logical blocks in a physical one as a power of two, none of them unaligned.
    put(24, &[u8::try_from((PAGE_BYTES / block).ilog2()).unwrap_or(0), 0]);
    let smallest = u16::try_from(PAGE_BYTES / block).unwrap_or(1);
    put(26, &smallest.to_le_bytes());
    put(28, &u32::try_from(preferred / block).unwrap_or(1).to_le_bytes());
    put(WRITE_CACHE, &[u8::from(has_write_cache)]);
    put(34, &options.queues.to_le_bytes());
    if !device.is_read_only() {
        let segments = |count: usize| u32::try_from(count).unwrap_or(1).to_le_bytes();
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &segments(MAX_DISCARD_SEGMENTS));
        put(44, &sectors(preferred).to_le_bytes());
        put(48, &MAX_ZERO_SECTORS.to_le_bytes());
        put(52, &segments(MAX_ZERO_SEGMENTS));
        put(56, &[1]);
    }
    debug_assert!(space[CONFIG_BYTES..].iter().all(|byte| *byte == 0));
    space
}

/// Whether a guest has a write cache in front of what is durable, which it may turn off and on.
#[derive(Debug)]
pub(super) struct WriteCache(AtomicBool);

impl Default for WriteCache {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl WriteCache {
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::Release);
    }
}

/// What a driver may write of the configuration space: the byte of the write cache, 0 or 1.
pub(super) fn write_cache_of(offset: u32, bytes: &[u8]) -> Option<bool> {
    match (usize::try_from(offset), bytes) {
        (Ok(WRITE_CACHE), [0]) => Some(false),
        (Ok(WRITE_CACHE), [1]) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::virtio_blk::virtio_blk_config as Kernel;

    use super::super::testing::TestDisk;
    use super::*;

    #[test]
    fn the_fields_lie_where_the_kernel_has_them() {
        use std::mem::offset_of;
        let disk = TestDisk::new(5 << 20);
        let options = VhostOptions { queues: 3, queue_size: 32, ..VhostOptions::default() };
        let space = space(&disk, &options, true);
        let number = |at: usize, len: usize| {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&space[at..at + len]);
            u64::from_le_bytes(bytes)
        };
        let cases = [
            (offset_of!(Kernel, capacity), 8, (5 << 20) / 512),
            (offset_of!(Kernel, size_max), 4, 0),
            (offset_of!(Kernel, seg_max), 4, 30),
            (offset_of!(Kernel, blk_size), 4, 512),
            (offset_of!(Kernel, wce), 1, 1),
            (offset_of!(Kernel, num_queues), 2, 3),
            (offset_of!(Kernel, max_discard_sectors), 4, 4 << 20),
            (offset_of!(Kernel, max_discard_seg), 4, 32),
            (offset_of!(Kernel, discard_sector_alignment), 4, 8),
            (offset_of!(Kernel, max_write_zeroes_sectors), 4, 512 << 10),
            (offset_of!(Kernel, max_write_zeroes_seg), 4, 1),
            (offset_of!(Kernel, write_zeroes_may_unmap), 1, 1),
        ];
        for (at, len, value) in cases {
            assert_eq!(number(at, len), value, "at {at}");
        }
        assert_eq!(WRITE_CACHE, offset_of!(Kernel, wce));
        // Topology: 8 logical blocks make a physical one, which is the least and the best to write.
        assert_eq!((number(24, 1), number(26, 2), number(28, 4)), (3, 8, 8));
    }

    #[test]
    fn a_read_only_disk_offers_no_way_to_change_it() {
        let disk = TestDisk::read_only(1 << 20);
        let offered = features(&disk);
        assert_ne!(offered & feature::READ_ONLY, 0);
        assert_eq!(offered & (feature::DISCARD | feature::WRITE_ZEROES), 0);
        let space = space(&disk, &VhostOptions::default(), true);
        assert!(space[36..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn only_the_byte_of_the_write_cache_can_be_written() {
        assert_eq!(write_cache_of(32, &[0]), Some(false));
        assert_eq!(write_cache_of(32, &[1]), Some(true));
        for (offset, bytes) in
            [(32, &[2][..]), (32, &[]), (32, &[0, 0]), (0, &[0]), (31, &[0]), (u32::MAX, &[1])]
        {
            assert_eq!(write_cache_of(offset, bytes), None, "{offset} {bytes:?}");
        }
    }

    #[test]
    fn a_serial_number_is_cut_to_what_fits() {
        let id = |serial: &str| {
            VhostOptions { serial: serial.to_owned(), ..VhostOptions::default() }.id()
        };
        assert_eq!(id("a"), *b"a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(id("0123456789abcdefghijk"), *b"0123456789abcdefghij");
    }
}
