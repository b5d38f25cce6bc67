//! A new QED image: superblock, L1 table, then each L2 table before the data of its range.

use std::io;
use std::ops::Range;

use qed_core::{BackingFormat, CreateBacking, CreateOptions, Layout, NewHeaderArea};
use qed_io::Storage;
use qed_spec::{Geometry, L2Entry};

use crate::convert::{ConvertError, Turn, WriteAction};
use crate::target::cluster_map::{EntryFormat, MapShape};
use crate::target::file::TargetFile;
use crate::target::mapped_file::MappedFile;
use crate::target::{Chunk, NewBacking, Shape, SharedRun, Sink};

pub(crate) struct QedSink {
    file: MappedFile,
    area: NewHeaderArea,
    overlay: bool,
    /// Bytes of the block device that the image goes to.
    device: Option<u64>,
}

impl QedSink {
    pub(crate) fn create(
        file: TargetFile,
        geometry: Geometry,
        layout: Layout,
        backing: Option<NewBacking>,
        size: u64,
    ) -> Result<Self, ConvertError> {
        let device = if file.grows_with_zeros() { None } else { Some(file.len()?) };
        let shape = MapShape {
            cluster_len: geometry.cluster_size_bytes(),
            table_clusters: geometry.table_size_clusters(),
            size,
            zeros_below: backing.as_ref().map_or(0, |backing| backing.len),
        };
        let overlay = backing.is_some();
        let backing = backing.map(|backing| CreateBacking {
            format: match backing.format.as_deref() {
                Some("raw") => BackingFormat::Raw,
                Some(format) => BackingFormat::Named(format.to_owned()),
                None => BackingFormat::Unstated,
            },
            name: backing.name,
        });
        let options = CreateOptions { geometry, image_size: size, backing, layout };
        let mut area = qed_core::header_area(&options)?;
        if let Some(capacity) = device {
            area = area.on_device(capacity)?;
        }
        let first_free = area.empty_len();
        let format = EntryFormat {
            owned: 0,
            zero: Some(L2Entry::Zero.encode(geometry)),
            encode: u64::to_le_bytes,
            limit: i64::MAX as u64,
        };
        let file = MappedFile::create(file, shape, format, first_free)?;
        let sink = Self { file, area, overlay, device };
        if device.is_some() {
            // What was there lies under slots and sectors that nothing else writes.
            sink.write_zeros(0..first_free)?;
        }
        Ok(sink)
    }
}

impl QedSink {
    /// Writes zeros rather than leave a hole: see [`NewHeaderArea::ring`].
    fn write_zeros(&self, range: Range<u64>) -> Result<(), ConvertError> {
        let zeros = [0; 64 << 10];
        for at in range.clone().step_by(zeros.len()) {
            let len = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(zeros.len());
            self.file.write_table(&zeros[..len], at)?;
        }
        Ok(())
    }
}

impl Sink for QedSink {
    fn shape(&self) -> Shape {
        self.file.shape(self.overlay.then_some(1))
    }

    fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError> {
        self.file.write(chunk, turn)
    }

    fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        self.file.sharing_unit(source)
    }

    fn share<'t>(
        &self,
        run: &SharedRun<'_>,
        turn: Turn<'t>,
    ) -> Result<Option<Turn<'t>>, ConvertError> {
        self.file.share(run, turn)
    }

    fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        self.file.zero(range, turn)
    }

    fn finish(&self) -> Result<(), ConvertError> {
        self.file.finish_tables()?;
        let end = self.file.end();
        if self.device.is_some_and(|capacity| capacity < end) {
            // The last cluster, of which the disk needs but the first bytes.
            let full = io::ErrorKind::StorageFull.into();
            return Err(ConvertError::write(WriteAction::Length, end)(full));
        }
        let l1_at = self.area.header.fields().l1_table_offset.get();
        if let Some(ring) = self.area.ring() {
            self.write_zeros(ring.offset().get()..ring.end().get())?;
        }
        if let Some((at, superblock)) = self.area.superblock(end) {
            self.file.write_table(&superblock, at.get())?;
        }
        self.file.publish(l1_at, 0, &self.area.front)
    }
}
