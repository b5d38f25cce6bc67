//! Numbers of the protocols: vhost-user, the split virtqueue and virtio-blk.

/// Feature bits that a driver negotiates, and two that only the frontend does.
pub(super) mod feature {
    pub(in crate::vhost) const SEG_MAX: u64 = 1 << 2;
    pub(in crate::vhost) const READ_ONLY: u64 = 1 << 5;
    pub(in crate::vhost) const BLOCK_SIZE: u64 = 1 << 6;
    pub(in crate::vhost) const FLUSH: u64 = 1 << 9;
    pub(in crate::vhost) const TOPOLOGY: u64 = 1 << 10;
    pub(in crate::vhost) const CONFIG_WCE: u64 = 1 << 11;
    pub(in crate::vhost) const MULTI_QUEUE: u64 = 1 << 12;
    pub(in crate::vhost) const DISCARD: u64 = 1 << 13;
    pub(in crate::vhost) const WRITE_ZEROES: u64 = 1 << 14;
    /// The frontend wants every change of guest memory logged.
    pub(in crate::vhost) const LOG_ALL: u64 = 1 << 26;
    pub(in crate::vhost) const INDIRECT: u64 = 1 << 28;
    pub(in crate::vhost) const EVENT_INDEX: u64 = 1 << 29;
    /// Protocol features are negotiated, and rings are enabled one by one.
    pub(in crate::vhost) const PROTOCOL: u64 = 1 << 30;
    pub(in crate::vhost) const VERSION_1: u64 = 1 << 32;
}

/// Protocol features.
pub(super) mod protocol {
    pub(in crate::vhost) const MULTI_QUEUE: u64 = 1 << 0;
    pub(in crate::vhost) const LOG_SHARED: u64 = 1 << 1;
    pub(in crate::vhost) const REPLY_ACK: u64 = 1 << 3;
    pub(in crate::vhost) const BACKEND_CHANNEL: u64 = 1 << 5;
    pub(in crate::vhost) const CONFIG: u64 = 1 << 9;
    pub(in crate::vhost) const INFLIGHT: u64 = 1 << 12;
    pub(in crate::vhost) const RESET_DEVICE: u64 = 1 << 13;
    pub(in crate::vhost) const MEMORY_SLOTS: u64 = 1 << 15;
    pub(in crate::vhost) const STATUS: u64 = 1 << 16;
}

/// Bits of the device status.
pub(super) mod status {
    pub(in crate::vhost) const NEEDS_RESET: u8 = 64;
}

/// Flags of a descriptor.
pub(super) mod descriptor {
    pub(in crate::vhost) const NEXT: u16 = 1;
    pub(in crate::vhost) const WRITE: u16 = 2;
    pub(in crate::vhost) const INDIRECT: u16 = 4;
}

/// The driver wants no interrupt; a flag of the available ring.
pub(super) const NO_INTERRUPT: u16 = 1;
/// The device wants no kick; a flag of the used ring.
pub(super) const NO_NOTIFY: u16 = 1;

/// What a driver asks of the disk.
pub(super) mod request {
    pub(in crate::vhost) const IN: u32 = 0;
    pub(in crate::vhost) const OUT: u32 = 1;
    pub(in crate::vhost) const FLUSH: u32 = 4;
    pub(in crate::vhost) const GET_ID: u32 = 8;
    pub(in crate::vhost) const DISCARD: u32 = 11;
    pub(in crate::vhost) const WRITE_ZEROES: u32 = 13;
    /// A segment to zero may lose its space.
    pub(in crate::vhost) const UNMAP: u32 = 1;
}

/// Bytes of a sector, the unit of places on the disk.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Bytes of a guest page in a dirty log.
pub(super) const LOG_PAGE_BYTES: u64 = 4096;
/// Bytes of the identity of a disk.
pub(super) const ID_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use virtio_bindings::{bindings::virtio_ring, virtio_blk, virtio_config};

    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernels_headers() {
        let bits = [
            (feature::SEG_MAX, virtio_blk::VIRTIO_BLK_F_SEG_MAX),
            (feature::READ_ONLY, virtio_blk::VIRTIO_BLK_F_RO),
            (feature::BLOCK_SIZE, virtio_blk::VIRTIO_BLK_F_BLK_SIZE),
            (feature::FLUSH, virtio_blk::VIRTIO_BLK_F_FLUSH),
            (feature::TOPOLOGY, virtio_blk::VIRTIO_BLK_F_TOPOLOGY),
            (feature::CONFIG_WCE, virtio_blk::VIRTIO_BLK_F_CONFIG_WCE),
            (feature::MULTI_QUEUE, virtio_blk::VIRTIO_BLK_F_MQ),
            (feature::DISCARD, virtio_blk::VIRTIO_BLK_F_DISCARD),
            (feature::WRITE_ZEROES, virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES),
            (feature::INDIRECT, virtio_ring::VIRTIO_RING_F_INDIRECT_DESC),
            (feature::EVENT_INDEX, virtio_ring::VIRTIO_RING_F_EVENT_IDX),
            (feature::VERSION_1, virtio_config::VIRTIO_F_VERSION_1),
        ];
        for (ours, bit) in bits {
            assert_eq!(ours, 1 << bit, "{bit}");
        }
        let words = [
            (u32::from(descriptor::NEXT), virtio_ring::VRING_DESC_F_NEXT),
            (u32::from(descriptor::WRITE), virtio_ring::VRING_DESC_F_WRITE),
            (u32::from(descriptor::INDIRECT), virtio_ring::VRING_DESC_F_INDIRECT),
            (u32::from(NO_INTERRUPT), virtio_ring::VRING_AVAIL_F_NO_INTERRUPT),
            (u32::from(NO_NOTIFY), virtio_ring::VRING_USED_F_NO_NOTIFY),
            (request::IN, virtio_blk::VIRTIO_BLK_T_IN),
            (request::OUT, virtio_blk::VIRTIO_BLK_T_OUT),
            (request::FLUSH, virtio_blk::VIRTIO_BLK_T_FLUSH),
            (request::GET_ID, virtio_blk::VIRTIO_BLK_T_GET_ID),
            (request::DISCARD, virtio_blk::VIRTIO_BLK_T_DISCARD),
            (request::WRITE_ZEROES, virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES),
            (request::UNMAP, virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
            (u32::try_from(ID_BYTES).unwrap(), virtio_blk::VIRTIO_BLK_ID_BYTES),
            (u32::from(status::NEEDS_RESET), virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET),
        ];
        for (ours, theirs) in words {
            assert_eq!(ours, theirs);
        }
    }
}
