//! What image to test on: its shape, its size and what lies under it.

use arbitrary::{Arbitrary, Result, Unstructured};
use qed_spec::Geometry;

/// A new image. Small: its model is kept in memory.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    /// A shape that QEMU opens too.
    pub geometry: Geometry,
    /// Bytes of the virtual disk, at least 512.
    pub image_size: u64,
    /// Bytes of the virtual disk under it, if there is one.
    pub backing_size: Option<u64>,
}

/// What an image lies over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Under {
    /// Nothing.
    Nothing,
    /// A raw image.
    Raw,
    /// A QED image.
    Qed,
}

impl ImagePlan {
    /// An image over `under`.
    ///
    /// # Errors
    /// None; any bytes do.
    pub fn over(from: &mut Unstructured<'_>, under: Under) -> Result<Self> {
        let geometry = geometry(from)?;
        let cluster = geometry.cluster_size_bytes();
        // One in eight has more clusters than one L2 table of the smallest shape maps.
        let clusters = if from.ratio(1, 8)? { 9 << 20 } else { 40 * cluster.min(1 << 16) };
        let image_size = size(from, cluster, clusters)?;
        let backing_size = match under {
            Under::Nothing => None,
            Under::Raw | Under::Qed => Some(size(from, cluster, image_size + 4 * cluster)?),
        };
        Ok(Self { geometry, image_size, backing_size })
    }
}

/// Small clusters come first: they make more happen in little space.
fn geometry(from: &mut Unstructured<'_>) -> Result<Geometry> {
    let cluster_bits = *from.choose(&[12, 12, 12, 13, 14, 16, 16, 18])?;
    // QEMU goes wrong with larger tables of small clusters: QED-QEMU-05.
    let tables: &[u32] = if cluster_bits < 16 { &[2, 4] } else { &[2, 4, 8, 16] };
    let geometry = Geometry::new(1 << cluster_bits, *from.choose(tables)?);
    Ok(geometry.expect("every pair is legal"))
}

/// A size of at most `most` bytes, half of them whole clusters.
fn size(from: &mut Unstructured<'_>, cluster: u64, most: u64) -> Result<u64> {
    let sectors = from.int_in_range(1..=most / 512)?;
    let size = 512 * sectors;
    Ok(if from.arbitrary()? { size.next_multiple_of(cluster) } else { size })
}
