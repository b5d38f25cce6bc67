//! Where the tables and refcounts of the QCOW2 image go, and writing them.
//!
//! Knows the mapping only through `sources`.

use std::ops::Range;
use std::sync::Arc;

use qed_core::{ImageError, LockPolicy, ReadContext, ReadOnlyImage};
use qed_io::Storage;
use qed_layout::ClusterSet;

use crate::in_place::error::{InPlaceError, Step};
use crate::in_place::step;
use crate::in_place::to_qcow2::NoteFormat;
use crate::in_place::to_qcow2::sources::{Source, for_each_run};
use crate::qcow2::Qcow2CreateOptions;
use crate::target::qcow2::refcounts::{RefcountTable, Sizes, for_each_block, table_bytes};
use crate::target::qcow2::{COPIED, ZERO};

/// The appended structures, each behind the one before: L2 tables, L1 table, refcount blocks,
/// refcount table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes from the start of the file, as all of these.
    pub(super) first_table: u64,
    pub(super) l1_at: u64,
    blocks_at: u64,
    pub(super) refcounts: RefcountTable,
    pub(super) end: u64,
    sizes: Sizes,
}

impl Layout {
    /// Appends behind `used`, which is a whole number of clusters.
    pub(super) fn new(options: &Qcow2CreateOptions, used: u64, tables: u64) -> Self {
        let cluster_len = u64::from(options.cluster_len);
        let l1_at = used + tables * cluster_len;
        let blocks_at = l1_at + options.l1_clusters() * cluster_len;
        let bits = options.refcount_bits;
        let sizes = Sizes::of(blocks_at / cluster_len, cluster_len, bits);
        let at = blocks_at + sizes.blocks * cluster_len;
        let clusters = u32::try_from(sizes.table_clusters).unwrap_or(u32::MAX);
        let end = at + sizes.table_clusters * cluster_len;
        let refcounts = RefcountTable { at, clusters };
        Self { first_table: used, l1_at, blocks_at, refcounts, end, sizes }
    }
}

/// Writes all that `layout` has, for a file that keeps the clusters `kept`; it is long enough.
pub(super) fn write_tables(
    storage: &Arc<dyn Storage>,
    options: &Qcow2CreateOptions,
    layout: &Layout,
    kept: &ClusterSet,
) -> Result<(), InPlaceError> {
    let gate = NoteFormat::default();
    let context = ReadContext::new(&gate, LockPolicy::None);
    let image = ReadOnlyImage::open(storage.clone(), &context)?;
    let l1 = write_l2_tables(&image, &**storage, options, layout)?;
    step::write(&**storage, Step::Append, &l1, layout.l1_at)?;
    write_refcounts(&**storage, options, layout, kept)
}

/// Writes the L2 tables that map anything; the bytes of the L1 table.
fn write_l2_tables(
    image: &ReadOnlyImage,
    storage: &dyn Storage,
    options: &Qcow2CreateOptions,
    layout: &Layout,
) -> Result<Vec<u8>, InPlaceError> {
    let cluster_len = u64::from(options.cluster_len);
    let reach = cluster_len / 8 * cluster_len;
    let mut l1 = Vec::new();
    let mut host = layout.first_table;
    let mut table = vec![0; usize::try_from(cluster_len).expect("at most 2 MiB")];
    for start in (0..options.size).step_by(usize::try_from(reach).expect("64-bit Linux")) {
        let range = start..options.size.min(start + reach);
        table.fill(0);
        if fill_table(image, range, cluster_len, &mut table)? {
            step::write(storage, Step::Append, &table, host)?;
            l1.extend((host | COPIED).to_be_bytes());
            host += cluster_len;
        } else {
            l1.extend([0; 8]);
        }
    }
    Ok(l1)
}

/// Fills a table of zeros with the entries of `range`; whether there are any.
fn fill_table(
    image: &ReadOnlyImage,
    range: Range<u64>,
    cluster_len: u64,
    table: &mut [u8],
) -> Result<bool, ImageError> {
    let start = range.start;
    let mut is_used = false;
    for_each_run(image, range, |at, len, source| {
        is_used = true;
        let first = usize::try_from((at - start) / cluster_len).expect("slots of one table");
        let count = usize::try_from(len.div_ceil(cluster_len)).expect("slots of one table");
        let slots = table.chunks_exact_mut(8).skip(first).take(count);
        for (slot, nth) in slots.zip(0..) {
            let entry = match source {
                Source::Data(host) => (host + nth * cluster_len) | COPIED,
                Source::Zero => ZERO,
            };
            slot.copy_from_slice(&entry.to_be_bytes());
        }
        Ok::<(), ImageError>(())
    })?;
    Ok(is_used)
}

fn write_refcounts(
    storage: &dyn Storage,
    options: &Qcow2CreateOptions,
    layout: &Layout,
    kept: &ClusterSet,
) -> Result<(), InPlaceError> {
    let cluster_len = u64::from(options.cluster_len);
    let new = layout.first_table / cluster_len;
    let count = |cluster| u64::from(cluster >= new || kept.contains(cluster));
    let total = layout.end / cluster_len;
    let (blocks, bits) = (layout.sizes.blocks, options.refcount_bits);
    for_each_block(blocks, cluster_len, bits, total, count, |bytes, block| {
        let at = layout.blocks_at + block * cluster_len;
        step::write(storage, Step::Append, bytes, at)
    })?;
    let table = table_bytes(layout.blocks_at, layout.sizes, cluster_len);
    step::write(storage, Step::Append, &table, layout.refcounts.at)
}
