//! The clusters that were decompressed last, so that small reads do not decompress one many times.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use qed_spec::HostOffset;

/// Clusters kept, unless they are so large that they exceed `MAX_BYTES`; never less than two.
const MAX_CLUSTERS: u64 = 16;
const MAX_BYTES: u64 = 4 << 20;

/// Decompressed clusters by where their streams start, the one used last in front.
#[derive(Debug)]
pub(super) struct ClusterCache {
    clusters: Mutex<VecDeque<(HostOffset, Arc<[u8]>)>>,
    capacity: usize,
}

impl ClusterCache {
    pub(super) fn new(cluster_size: u64) -> Self {
        let capacity = (MAX_BYTES / cluster_size).clamp(2, MAX_CLUSTERS);
        let capacity = usize::try_from(capacity).expect("at most 16");
        Self { clusters: Mutex::default(), capacity }
    }

    pub(super) fn find(&self, at: HostOffset) -> Option<Arc<[u8]>> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let found = clusters.iter().position(|(start, _)| *start == at)?;
        let entry = clusters.remove(found)?;
        let cluster = Arc::clone(&entry.1);
        clusters.push_front(entry);
        Some(cluster)
    }

    pub(super) fn insert(&self, at: HostOffset, cluster: Arc<[u8]>) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.truncate(self.capacity - 1);
        clusters.push_front((at, cluster));
    }
}
