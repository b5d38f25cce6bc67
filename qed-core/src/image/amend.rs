//! Giving an image that nobody has open another layout: QEMU's own, compat mode or journal mode.
//!
//! Owns the order of the steps; which clusters have to make room is asked in `amend/occupants.rs`,
//! and they are moved in `amend/room.rs`. Every step leaves an image that opens and reads as
//! before, so a call that was interrupted is made again.
//!
//! Step names are those of docs/write-ordering.md.

pub(crate) mod lower_l1;
mod occupants;
mod room;

use std::sync::Arc;

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, ConsistencyMode, DirtyBitmap, Geometry, JournalRing, SUPERBLOCK_LEN_BYTES,
    SectionType, SuperblockCopy,
};

use crate::data::disk::GivenBacking;
use crate::error::AmendError;
use crate::head::closed::ClosedHead;
use crate::head::create::{Identity, Layout, ring_behind};
use crate::head::sector::storage_len;
use crate::image::Image;
use crate::image::amend::room::make_room;
use crate::options::{LockPolicy, RecoveryPolicy, WriteContext};

const SUPERBLOCK_LEN: u64 = SUPERBLOCK_LEN_BYTES as u64;

/// What the header area is to hold.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    identity: Identity,
    mode: ConsistencyMode,
    bitmap: DirtyBitmap,
    /// In journal mode.
    ring: Option<JournalRing>,
}

/// Gives the image in `storage` another layout; durable when it returns.
///
/// The image is opened for writing first, with all that this means for one that was not closed;
/// its backing file is not. Then nothing of the guest's disk changes but the place of clusters
/// that lie where the header area has to grow. The identity of `layout` is used if the image has
/// none yet. An image that has the layout already is left as it is.
///
/// # Errors
/// The image then has the old layout or the new one, or stands between them and opens all the same;
/// the call can be made again.
///
/// ```
/// # use std::sync::Arc;
/// # use qed_core::*;
/// # use qed_io::{MemoryStorage, Storage};
/// # use qed_spec::{Epoch, ImageUuid};
/// # let random = [7; 16];
/// let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
/// create(&*storage, &CreateOptions::new(1 << 30))?;
/// assert_eq!(Consistency::read(&*storage)?.mode(), None);
/// let identity = Identity { uuid: ImageUuid::new(random), epoch: Epoch::new(7) };
/// let layout = Layout::Journal { identity, ring_len_bytes: DEFAULT_RING_LEN_BYTES };
/// amend(&storage, layout, LockPolicy::Take, RecoveryPolicy::Refuse)?;
/// assert!(Consistency::read(&*storage)?.mode().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// spec: QED-MODE-03, QED-SB-12
pub fn amend(
    storage: &Arc<dyn Storage>,
    layout: Layout,
    lock: LockPolicy,
    recovery: RecoveryPolicy<'_>,
) -> Result<(), AmendError> {
    let context = WriteContext::new(&GivenBacking(None), lock, recovery);
    let image = Image::open(storage.clone(), &context)?;
    let wanted = Wanted::new(layout, image.geometry())?;
    // Step "close": the log is empty, no dirty bit is set, and the autoclear bits say what is kept up.
    image.close()?;
    let found = ClosedHead::read(&**storage)?;
    let amending = Amending { storage, found };
    match wanted {
        None => amending.make_classic(),
        Some(wanted) if amending.found.is(wanted.mode, wanted.ring_len_bytes()) => Ok(()),
        Some(wanted) => amending.extend(&wanted),
    }
}

impl Wanted {
    /// None for QEMU's own layout.
    fn new(layout: Layout, geometry: Geometry) -> Result<Option<Self>, AmendError> {
        let bitmap = DirtyBitmap::of_new_image(geometry, 0);
        Ok(match layout {
            Layout::Classic => None,
            Layout::Compat(identity) => {
                Some(Self { identity, mode: ConsistencyMode::Compat, bitmap, ring: None })
            }
            Layout::Journal { identity, ring_len_bytes } => {
                let ring = Some(ring_behind(&bitmap, ring_len_bytes)?);
                Some(Self { identity, mode: ConsistencyMode::Journal, bitmap, ring })
            }
        })
    }

    /// Clusters of the header area, at least.
    fn header_size_clusters(&self, geometry: Geometry) -> u64 {
        let ring_end = self.ring.map_or(0, |ring| ring.end().get());
        self.bitmap.end().max(ring_end).div_ceil(geometry.cluster_size_bytes())
    }

    fn ring_len_bytes(&self) -> Option<u64> {
        self.ring.map(|ring| ring.len_bytes())
    }

    /// The autoclear bits of an image of this layout.
    fn bits(&self) -> AutoclearFeatures {
        match self.mode {
            ConsistencyMode::Compat => AutoclearFeatures::TABLE_DIRTY,
            ConsistencyMode::Journal => AutoclearFeatures::JOURNAL,
        }
    }
}

/// An image that is being amended: closed, and locked by the caller or the step before.
struct Amending<'a> {
    storage: &'a Arc<dyn Storage>,
    found: ClosedHead,
}

impl Amending<'_> {
    /// To compat mode, to journal mode, or to a journal of another length.
    fn extend(mut self, wanted: &Wanted) -> Result<(), AmendError> {
        self.check_name()?;
        let header = self.found.sector.header();
        let clusters = wanted.header_size_clusters(header.geometry());
        let clusters = make_room(self.storage, &mut self.found.sector, clusters)?;
        self.initialise(wanted)?;
        self.set_header_size(clusters)?;
        self.set_mode(wanted)?;
        self.set_bits(wanted.bits())
    }

    /// To QEMU's own layout; a header area that was enlarged stays so.
    fn make_classic(mut self) -> Result<(), AmendError> {
        let Some((current, _)) = self.found.superblock.take().zip(self.found.mode) else {
            return Ok(());
        };
        // Step "bits": without them nothing is believed but the mode.
        self.set_bits(AutoclearFeatures::empty())?;
        // Step "no superblock": the older copy goes first, or a crash could bring it back.
        for copy in [current.copy.other(), current.copy] {
            self.found.zero(&**self.storage, copy.offset(), SUPERBLOCK_LEN)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Refuses a name behind the place where names go.
    // spec: QED-SB-01, QED-DIRTY-01, QED-JRN-02
    fn check_name(&self) -> Result<(), AmendError> {
        let first = SuperblockCopy::A.offset();
        let place = self.found.sector.header().backing_name_place();
        match place.map(|(offset, len)| u64::from(offset) + u64::from(len)) {
            Some(end) if end > first.get() => Err(AmendError::NameInTheWay { end, first }),
            _ => Ok(()),
        }
    }

    /// Step "initialise": what the new mode needs lies where it goes, durably. What is there now
    /// is named by nothing: space that made room, an empty ring, a bitmap of zeros.
    // spec: QED-SB-12, QED-DIRTY-06
    fn initialise(&mut self, wanted: &Wanted) -> Result<(), AmendError> {
        if self.found.superblock.is_none() {
            self.found.zero(&**self.storage, SuperblockCopy::B.offset(), SUPERBLOCK_LEN)?;
            self.found.write_first_superblock(&**self.storage, wanted.identity)?;
        }
        let (bitmap, storage) = (&wanted.bitmap, &**self.storage);
        match &wanted.ring {
            Some(ring) => self.found.format_ring(storage, ring)?,
            None => self.found.zero(storage, bitmap.offset(), bitmap.len_bytes())?,
        }
        self.flush()
    }

    /// Step "area": from here on the header area holds what was initialised.
    fn set_header_size(&mut self, clusters: u64) -> Result<(), AmendError> {
        let clusters =
            u32::try_from(clusters).expect("a bitmap, a ring and a table have at most 2.2 GiB");
        if self.found.sector.header().fields().header_size_clusters == clusters {
            return Ok(());
        }
        self.found.sector.write_fields(&**self.storage, |fields| {
            fields.header_size_clusters = clusters;
        })?;
        self.flush()
    }

    /// Step "mode": one superblock says the mode and where its structures lie. No bit believes it
    /// yet, so an open of the image now begins them anew.
    // spec: QED-MODE-01, QED-SB-11, QED-SB-17
    fn set_mode(&mut self, wanted: &Wanted) -> Result<(), AmendError> {
        let end = storage_len(&**self.storage)?;
        self.found.write_superblock(&**self.storage, |builder| {
            builder.set_section(SectionType::MODE, &wanted.mode.encode())?;
            match &wanted.ring {
                Some(ring) => {
                    builder.remove_section(SectionType::TABLE_DIRTY);
                    builder.set_section(SectionType::JOURNAL, &ring.encode())
                }
                None => {
                    builder.remove_section(SectionType::JOURNAL);
                    let payload = wanted.bitmap.with_epoch_size(end).encode();
                    builder.set_section(SectionType::TABLE_DIRTY, &payload)
                }
            }
        })?;
        self.flush()
    }

    /// Step "bits".
    fn set_bits(&mut self, bits: AutoclearFeatures) -> Result<(), AmendError> {
        if self.found.sector.header().fields().autoclear_features == bits {
            return Ok(());
        }
        self.found
            .sector
            .write_fields(&**self.storage, |fields| fields.autoclear_features = bits)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), AmendError> {
        Ok(self.found.flush(&**self.storage)?)
    }
}
