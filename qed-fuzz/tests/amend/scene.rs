//! An image with random content that is to be amended, and what its disk reads as.

use std::sync::Arc;

use qed_check::recovery_hook;
use qed_core::{
    AmendError, BackingFormat, CreateBacking, CreateOptions, GivenBacking, Identity, Image, Layout,
    LockPolicy, RecoveryPolicy, WriteContext, amend, create,
};
use qed_fuzz::{
    ImagePlan, Model, SparseContent, apply_to_image, disk_of, from_seed, operations, raw_backing,
};
use qed_io::Storage;
use qed_spec::{
    Epoch, Generation, Geometry, GuestOffset, ImageUuid, SectionType, SuperblockBuilder,
};

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(8) };

pub(crate) const COMPAT: Layout = Layout::Compat(IDENTITY);
pub(crate) const JOURNAL: Layout = Layout::Journal { identity: IDENTITY, ring_len_bytes: 32 << 10 };
pub(crate) const LONG_JOURNAL: Layout =
    Layout::Journal { identity: IDENTITY, ring_len_bytes: 44 << 10 };

/// How many operations make the content.
const OPERATIONS: usize = 14;

/// A closed image, or what a crash left of one.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) geometry: Geometry,
    pub(crate) start: SparseContent,
    pub(crate) model: Model,
    pub(crate) gate: GivenBacking,
    /// The bytes of the backing file.
    pub(crate) below: Option<Vec<u8>>,
}

impl Scene {
    pub(crate) fn new(
        layout: Layout,
        geometry: Geometry,
        clusters: u64,
        backing: bool,
        seed: u64,
    ) -> Self {
        let image_size = clusters * geometry.cluster_size_bytes();
        let below = backing.then(|| vec![0xb1; 9000]);
        let plan = ImagePlan { geometry, image_size, backing_size: below.as_ref().map(|_| 9000) };
        let disk = disk_of(&SparseContent::default());
        let name = || CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
        let options = CreateOptions { geometry, image_size, backing: backing.then(name), layout };
        create(&*disk, &options).unwrap();
        let gate = raw_backing(below.as_ref());
        let mut model = match &below {
            Some(bytes) => Model::over(&Model::of(bytes.clone()), image_size),
            None => Model::new(image_size),
        };
        forge(disk.clone(), &gate, &mut model);
        let list = from_seed(seed, |from| operations(from, &plan, OPERATIONS));
        apply_to_image(disk.clone(), &gate, &list, &mut model).unwrap();
        Self { geometry, start: disk.content(), model, gate, below }
    }

    /// The same after it was amended.
    pub(crate) fn amended(self, to: Layout) -> Self {
        let disk = disk_of(&self.start);
        amend_on(disk.clone(), to).unwrap();
        Self { start: disk.content(), ..self }
    }

    /// What a crash leaves after a flush of new clusters.
    pub(crate) fn left_open(&self) -> Self {
        let disk = disk_of(&self.start);
        let image = open(disk.clone(), &self.gate);
        let mut bytes = self.model.bytes().to_vec();
        let last = bytes.len() / 512 - 1;
        for sector in [last, last / 2, 1] {
            bytes[sector * 512..][..512].fill(0x1b);
            image.write_at(&[0x1b; 512], GuestOffset::new(sector as u64 * 512)).unwrap();
        }
        image.flush().unwrap();
        let start = disk.content();
        Self { start, model: Model::of(bytes), ..self.clone() }
    }
}

/// A guest writes what looks like a superblock into its first clusters, which lie where superblocks
/// go: one that would keep the image from being opened.
fn forge(storage: Arc<dyn Storage>, gate: &GivenBacking, model: &mut Model) {
    let mut forged = SuperblockBuilder::new(ImageUuid::new([6; 16]), Epoch::new(6));
    forged.set_section(SectionType::MODE, &99_u32.to_le_bytes()).unwrap();
    let forged = forged.encode(Generation::new(1 << 40).unwrap());
    let mut bytes = model.bytes().to_vec();
    let image = open(storage, gate);
    for (at, part) in (0..).step_by(forged.len()).zip(bytes.chunks_exact_mut(forged.len())).take(3)
    {
        part.copy_from_slice(&forged);
        image.write_at(&forged, GuestOffset::new(at)).unwrap();
    }
    image.close().unwrap();
    *model = Model::of(bytes);
}

fn open(storage: Arc<dyn Storage>, gate: &GivenBacking) -> Image {
    let context = WriteContext::new(gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    Image::open(storage, &context).unwrap()
}

/// Amends the image in `storage`, whatever a crash left of it.
pub(crate) fn amend_on(storage: Arc<dyn Storage>, to: Layout) -> Result<(), AmendError> {
    amend(&storage, to, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook))
}
