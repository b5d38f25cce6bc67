//! What an image's header and file length say about where things may lie: the rules for one entry.
//!
//! Pure arithmetic; reads nothing and remembers nothing.

use std::ops::Range;

use qed_layout::{Root, Roots};
use qed_spec::{Features, Header, HostOffset, L1Entry, L1Index, L2Entry};

use crate::finding::{FindingKind, Place};

/// The shape of one image file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) header: Header,
    pub(crate) roots: Roots,
    pub(crate) file_len: u64,
    /// Clusters of the file that are there in full.
    pub(crate) whole_clusters: u64,
    /// Clusters of the file, the last one perhaps in part.
    pub(crate) clusters: u64,
}

/// What an L2 entry says when it breaks no rule that can be judged from the entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    None,
    Zero,
    Cluster(u64),
}

impl Layout {
    pub(crate) fn new(header: Header, file_len: u64) -> Self {
        let geometry = header.geometry();
        Self {
            header,
            roots: Roots::of(&header),
            file_len,
            whole_clusters: file_len >> geometry.cluster_bits(),
            clusters: geometry.clusters_for(file_len).get(),
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.header.features().contains(Features::NEED_CHECK)
    }

    pub(crate) fn cluster_bits(&self) -> u32 {
        self.header.geometry().cluster_bits()
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        self.header.geometry().cluster_size_bytes()
    }

    /// Where a cluster of the file starts, in bytes.
    pub(crate) fn offset_of(&self, cluster: u64) -> HostOffset {
        HostOffset::new(cluster.saturating_mul(self.cluster_size()))
    }

    /// The clusters that whole clusters of bytes are.
    pub(crate) fn clusters_of(&self, bytes: &Range<u64>) -> Range<u64> {
        bytes.start >> self.cluster_bits()..bytes.end >> self.cluster_bits()
    }

    /// The root that has one of these clusters.
    fn root_at(&self, clusters: &Range<u64>) -> Option<Root> {
        self.roots.at(&(self.offset_of(clusters.start).get()..self.offset_of(clusters.end).get()))
    }

    pub(crate) fn l1_offset(&self) -> HostOffset {
        self.header.fields().l1_table_offset
    }

    /// The clusters of the L2 table that an L1 entry names; none for an entry of 0.
    // spec: QED-TBL-02, QED-TBL-07
    pub(crate) fn table(&self, value: u64) -> Result<Option<Range<u64>>, FindingKind> {
        let start = match L1Entry::decode(value, self.header.geometry()) {
            Ok(L1Entry::Unallocated) => return Ok(None),
            Ok(L1Entry::Table(cluster)) => cluster.get(),
            Err(_) => return Err(FindingKind::L1Unaligned),
        };
        let range = start..start.saturating_add(self.header.geometry().table_size_clusters());
        if range.end > self.clusters {
            return Err(FindingKind::L1PastEnd);
        }
        match self.root_at(&range) {
            Some(Root::HeaderArea) => Err(FindingKind::L1IntoHeader),
            Some(Root::L1Table) => Err(FindingKind::L1IntoL1Table),
            None => Ok(Some(range)),
        }
    }

    /// What an L2 entry names, whether or not something else names it too.
    // spec: QED-TBL-04, QED-TBL-05, QED-TBL-07
    pub(crate) fn data(&self, value: u64) -> Result<Data, FindingKind> {
        let cluster = match L2Entry::decode(value, self.header.geometry()) {
            Ok(L2Entry::Unallocated) => return Ok(Data::None),
            Ok(L2Entry::Zero) => return Ok(Data::Zero),
            Ok(L2Entry::Data(cluster)) => cluster.get(),
            Err(_) => return Err(FindingKind::L2Unaligned),
        };
        if cluster >= self.clusters {
            return Err(FindingKind::L2PastEnd);
        }
        match self.root_at(&(cluster..cluster + 1)) {
            Some(Root::HeaderArea) => Err(FindingKind::L2IntoHeader),
            Some(Root::L1Table) => Err(FindingKind::L2IntoL1Table),
            None => Ok(Data::Cluster(cluster)),
        }
    }

    /// Whether a run of clusters that ends inside the file is cut off by its end.
    pub(crate) fn is_cut_off(&self, run: &Range<u64>) -> bool {
        run.end > self.whole_clusters
    }

    /// Clusters of the virtual disk, the last one perhaps in part.
    pub(crate) fn image_clusters(&self) -> u64 {
        self.header.geometry().clusters_for(self.header.image_size()).get()
    }

    /// Whether everything that the L1 slot stands for lies past the end of the virtual disk.
    pub(crate) fn is_beyond_image(&self, l1: L1Index) -> bool {
        l1.get() >= self.header.geometry().l1_entries_for(self.header.image_size())
    }

    /// The first slot of the table at `l1` past the end of the virtual disk; for an L1 slot that
    /// lies past it as a whole, the fault is the L1 slot's and no entry is singled out.
    // spec: QED-TBL-09, QED-CHK-03
    pub(crate) fn entries_in_image(&self, l1: L1Index) -> u64 {
        let geometry = self.header.geometry();
        if self.is_beyond_image(l1) {
            return geometry.table_entries();
        }
        let before = l1.get() * geometry.table_entries();
        (self.image_clusters() - before).min(geometry.table_entries())
    }

    pub(crate) fn l1_place(&self, l1: L1Index) -> Place {
        Place::L1Slot { l1, at: HostOffset::new(self.l1_offset().get() + l1.get() * 8) }
    }
}
