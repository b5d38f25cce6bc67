//! What a disk is converted to, and how.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_convert::qcow2::{Qcow2Compression, Qcow2CreateOptions, Qcow2Version};
use qed_convert::{ConvertOptions, NewBacking, Order};
use qed_core::{Layout, VirtualDisk};
use qed_spec::Geometry;

use crate::generators::disk::layout;

/// Most threads of a conversion: starting them is most of its work here.
const MAX_THREADS: usize = 2;

/// The target of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    Raw,
    /// Onto a raw disk that is this much longer than the source and full of other bytes.
    RawImage {
        more: u64,
    },
    Stream,
    Qed {
        geometry: Geometry,
        layout: Layout,
        backing: Option<NewBacking>,
    },
    Qcow2 {
        options: Qcow2CreateOptions,
        compress: bool,
    },
    /// Into an image that has other content, and is this much longer than the source.
    QedImage {
        more: u64,
    },
}

/// A target for a disk that lies over `under`.
pub(crate) fn target(
    from: &mut Unstructured<'_>,
    under: Option<&Arc<dyn VirtualDisk>>,
) -> Result<To> {
    let more = 512 * from.int_in_range(0..=40)?;
    Ok(match from.int_in_range(0..=7)? {
        0 => To::Raw,
        1 => To::RawImage { more },
        2 => To::Stream,
        3 => To::QedImage { more },
        4 | 5 => {
            let bits = *from.choose(&[12, 12, 13, 16])?;
            let geometry = Geometry::new(1 << bits, 1 << from.int_in_range(0..=2)?);
            let geometry = geometry.expect("every pair is legal");
            To::Qed { geometry, layout: layout(from)?, backing: new_backing(from, under)? }
        }
        _ => {
            let mut options = Qcow2CreateOptions::new(0);
            if from.ratio(1, 4)? {
                options.version = Qcow2Version::V2;
            } else {
                options.refcount_bits = 1 << from.int_in_range(0..=6)?;
                options.lazy_refcounts = from.arbitrary()?;
                options.compression =
                    *from.choose(&[Qcow2Compression::Zlib, Qcow2Compression::Zstd])?;
            }
            options.cluster_len = 1 << from.int_in_range(9..=16)?;
            options.backing = new_backing(from, under)?;
            To::Qcow2 { options, compress: from.arbitrary()? }
        }
    })
}

/// How to convert.
pub(crate) fn options(from: &mut Unstructured<'_>) -> Result<ConvertOptions> {
    let threads = from.int_in_range(1..=MAX_THREADS)?;
    Ok(ConvertOptions {
        threads: NonZeroUsize::new(threads).expect("from 1 on"),
        order: if from.arbitrary()? { Order::Guest } else { Order::Any },
        sparse_len: *from.choose(&[0, 1, 512, 4096, 65536, u64::MAX])?,
        salvage: from.arbitrary()?,
        durable: from.arbitrary()?,
        ..ConvertOptions::default()
    })
}

fn new_backing(
    from: &mut Unstructured<'_>,
    under: Option<&Arc<dyn VirtualDisk>>,
) -> Result<Option<NewBacking>> {
    let keeps: bool = from.arbitrary()?;
    let new = |under: &Arc<dyn VirtualDisk>| NewBacking {
        name: b"backing".to_vec(),
        format: None,
        len: under.len(),
    };
    Ok(under.filter(|_| keeps).map(new))
}
