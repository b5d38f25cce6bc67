//! Refcounts of a new image: sized once, when everything else has its place, counting themselves.

use crate::convert::ConvertError;
use crate::target::mapped_file::MappedFile;
use crate::target::qcow2::options::Qcow2CreateOptions;

/// Largest refcount table that QEMU opens.
const MAX_TABLE_LEN: u64 = 8 << 20;

/// Where the refcount table lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefcountTable {
    /// Bytes from the start of the file.
    pub(crate) at: u64,
    pub(crate) clusters: u32,
}

/// How many clusters the refcount structures take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) blocks: u64,
    pub(crate) table_clusters: u64,
}

impl Sizes {
    /// The smallest structures that count `used` clusters and themselves.
    pub(crate) fn of(used: u64, cluster_len: u64, bits: u32) -> Self {
        let per_block = per_block(cluster_len, bits);
        let mut sizes = Self { blocks: 0, table_clusters: 0 };
        loop {
            let total = used + sizes.blocks + sizes.table_clusters;
            let blocks = total.div_ceil(per_block);
            let next = Self { blocks, table_clusters: (blocks * 8).div_ceil(cluster_len) };
            if next == sizes {
                return sizes;
            }
            sizes = next;
        }
    }
}

/// Bytes of the longest file that the refcount table can count.
pub(crate) fn max_file_len(cluster_len: u64, bits: u32) -> u64 {
    (MAX_TABLE_LEN / 8).saturating_mul(per_block(cluster_len, bits)).saturating_mul(cluster_len)
}

fn per_block(cluster_len: u64, bits: u32) -> u64 {
    cluster_len * 8 / u64::from(bits)
}

/// Writes refcounts for every cluster given out so far and for those it takes itself; `count` says
/// how often a cluster is used.
pub(crate) fn write(
    file: &MappedFile,
    options: &Qcow2CreateOptions,
    count: impl Fn(u64) -> u64,
) -> Result<RefcountTable, ConvertError> {
    let cluster_len = u64::from(options.cluster_len);
    let sizes = Sizes::of(file.map().end() / cluster_len, cluster_len, options.refcount_bits);
    let blocks_at = file.map().allocate(sizes.blocks)?;
    let at = file.map().allocate(sizes.table_clusters)?;
    let total = file.map().end() / cluster_len;
    let put_block = |bytes: &[u8], block| file.write_table(bytes, blocks_at + block * cluster_len);
    for_each_block(sizes.blocks, cluster_len, options.refcount_bits, total, count, put_block)?;
    file.write_table(&table_bytes(blocks_at, sizes, cluster_len), at)?;
    let clusters = u32::try_from(sizes.table_clusters).expect("the table is at most 8 MiB");
    Ok(RefcountTable { at, clusters })
}

/// Calls `visit` with the bytes and the number of every refcount block of a file of `total` clusters.
pub(crate) fn for_each_block<E>(
    blocks: u64,
    cluster_len: u64,
    bits: u32,
    total: u64,
    count: impl Fn(u64) -> u64,
    mut visit: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let per_block = per_block(cluster_len, bits);
    let mut bytes = vec![0; usize::try_from(cluster_len).expect("at most 2 MiB")];
    for block in 0..blocks {
        bytes.fill(0);
        let first = block * per_block;
        for cluster in first..total.min(first + per_block) {
            put(&mut bytes, cluster - first, bits, count(cluster));
        }
        visit(&bytes, block)?;
    }
    Ok(())
}

/// The refcount table whose blocks follow each other from `blocks_at` on.
pub(crate) fn table_bytes(blocks_at: u64, sizes: Sizes, cluster_len: u64) -> Vec<u8> {
    let hosts = (0..sizes.blocks).map(|block| blocks_at + block * cluster_len);
    let mut table: Vec<u8> = hosts.flat_map(u64::to_be_bytes).collect();
    let len = sizes.table_clusters * cluster_len;
    table.resize(usize::try_from(len).expect("the table is at most 8 MiB"), 0);
    table
}

/// Sets refcount number `slot` of a block that is all zero there.
fn put(block: &mut [u8], slot: u64, bits: u32, value: u64) {
    let slot = usize::try_from(slot).expect("slots of one block");
    let bits = usize::try_from(bits).expect("at most 64");
    let bytes = value.to_be_bytes();
    if bits >= 8 {
        let width = bits / 8;
        block[slot * width..(slot + 1) * width].copy_from_slice(&bytes[8 - width..]);
    } else {
        // Narrow refcounts start at the low end of their byte.
        block[slot * bits / 8] |= bytes[7] << (slot * bits % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_themselves_and_are_minimal() {
        for (cluster_len, bits) in [(512, 64), (512, 1), (4096, 16), (65536, 16), (2 << 20, 8)] {
            for used in [1, 2, 3, 63, 64, 65, 4095, 32766, 32767, 32768, 1 << 20] {
                let sizes = Sizes::of(used, cluster_len, bits);
                let total = used + sizes.blocks + sizes.table_clusters;
                let per_block = per_block(cluster_len, bits);
                assert!(sizes.blocks * per_block >= total, "{cluster_len} {bits} {used}");
                assert!((sizes.blocks - 1) * per_block < total, "{cluster_len} {bits} {used}");
            }
        }
    }

    #[test]
    fn every_width_is_written_where_the_format_has_it() {
        for (bits, slot, value, want) in [
            (1, 9, 1, [0, 0b10, 0, 0]),
            (2, 5, 3, [0, 0b1100, 0, 0]),
            (4, 3, 9, [0, 0x90, 0, 0]),
            (8, 2, 200, [0, 0, 200, 0]),
            (16, 1, 0x1234, [0, 0, 0x12, 0x34]),
            (32, 0, 0x0102_0304, [1, 2, 3, 4]),
        ] {
            let mut block = [0; 4];
            put(&mut block, slot, bits, value);
            assert_eq!(block, want, "{bits} bits");
        }
    }
}
