//! Made-up headers of QCOW2 images without a disk, and what is asked of them.

use qed_fuzz::SparseContent;

const FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const UNKNOWN: u32 = 0x0123_4567;
/// Extensions that have to stay.
pub(crate) const OTHERS: fn(u32) -> bool = |kind| kind != FORMAT;

/// A header, and the backing file that it gets.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    version: u32,
    cluster_bits: u32,
    /// Kind and payload.
    extensions: Vec<(u32, Vec<u8>)>,
    name: Vec<u8>,
    /// Zeros between extensions and name.
    gap: usize,
    pub(crate) new: Option<(Vec<u8>, Vec<u8>)>,
}

impl Case {
    /// Cluster 0, a refcount table, and a cluster more.
    pub(crate) fn start(&self) -> SparseContent {
        let cluster = 1_usize << self.cluster_bits;
        let header_len = if self.version == 2 { 72 } else { 112 };
        let mut bytes = vec![0; header_len];
        bytes[..8].copy_from_slice(&[*b"QFI\xfb", self.version.to_be_bytes()].concat());
        for (kind, payload) in &self.extensions {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u32_of(payload.len()).to_be_bytes());
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes.resize(bytes.len() + 8 + self.gap, 0);
        if !self.name.is_empty() {
            let at = bytes.len() as u64;
            bytes[8..16].copy_from_slice(&at.to_be_bytes());
            bytes[16..20].copy_from_slice(&u32_of(self.name.len()).to_be_bytes());
            bytes.extend(&self.name);
        }
        bytes[20..24].copy_from_slice(&self.cluster_bits.to_be_bytes());
        bytes[48..56].copy_from_slice(&(cluster as u64).to_be_bytes());
        bytes[56..60].copy_from_slice(&1_u32.to_be_bytes());
        if self.version == 3 {
            // A bit that nobody knows, which whoever writes clears; refcounts of 16 bits.
            bytes[88..96].copy_from_slice(&(1_u64 << 40 | 1).to_be_bytes());
            bytes[96..100].copy_from_slice(&4_u32.to_be_bytes());
            bytes[100..104].copy_from_slice(&112_u32.to_be_bytes());
        }
        bytes.resize(3 * cluster, 0);
        SparseContent::of(&bytes)
    }

    /// Whether header and names would need all of the first cluster while they move, or extensions
    /// reach past the first sector in version 2, which has one place for them.
    pub(crate) fn may_lack_room(&self) -> bool {
        let new = self.new.as_ref().map_or(0, |(name, _)| name.len());
        let len = 112 + self.len_of_extensions();
        let is_full = 2 * len + self.gap + self.name.len() + 2 * new > 1 << self.cluster_bits;
        is_full || (self.version == 2 && len > 512)
    }

    fn len_of_extensions(&self) -> usize {
        self.extensions.iter().map(|(_, payload)| payload.len() + 16).sum::<usize>() + 24
    }
}

/// The extensions of an image of a kind that `wanted` says yes to, as the file has them.
pub(crate) fn extensions_of(file: &[u8], wanted: impl Fn(u32) -> bool) -> Vec<(u32, Vec<u8>)> {
    let word = |at: usize| u32::from_be_bytes(*file[at..].first_chunk().unwrap());
    let mut at = if word(4) == 2 { 72 } else { word(100) as usize };
    let mut found = Vec::new();
    while word(at) != 0 {
        let end = at + 8 + word(at + 4) as usize;
        if wanted(word(at)) {
            found.push((word(at), file[at + 8..end].to_vec()));
        }
        at = end.next_multiple_of(8);
    }
    found
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).unwrap()
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).map(|at| b'a' + (at ^ seed) % 23).collect()
}

/// As QEMU has them, eight bits named.
fn feature_names() -> (u32, Vec<u8>) {
    let mut table = Vec::new();
    for bit in 0..8 {
        table.extend([0, bit]);
        let mut name = bytes(bit, 14);
        name.resize(46, 0);
        table.extend(name);
    }
    (FEATURE_NAMES, table)
}

pub(crate) fn cases() -> Vec<Case> {
    let format = |name: &[u8]| (FORMAT, name.to_vec());
    let unknown = |len| (UNKNOWN, bytes(3, len));
    let lists = [
        vec![],
        vec![format(b"raw")],
        vec![format(b"host_device")],
        vec![feature_names()],
        vec![format(b"raw"), feature_names()],
        vec![feature_names(), format(b"qcow2")],
        vec![format(b"raw"), unknown(24)],
        vec![unknown(13), format(b"raw")],
        vec![format(b"raw"), feature_names(), unknown(24)],
        vec![feature_names(), unknown(24)],
        vec![format(b"raw"), unknown(700)],
        vec![unknown(700)],
    ];
    let mut cases = Vec::new();
    for version in [2, 3] {
        for cluster_bits in [9, 10, 12, 16] {
            for extensions in &lists {
                for (name_len, gap) in [(0, 0), (5, 0), (5, 600), (300, 0), (1023, 0)] {
                    for new_len in [0, 1, 400, 1023] {
                        let new = (bytes(9, new_len), b"qcow2".to_vec());
                        let (extensions, name) = (extensions.clone(), bytes(5, name_len));
                        let new = Some(new).filter(|_| new_len != 0);
                        let case = Case { version, cluster_bits, extensions, name, gap, new };
                        // The old header has to fit too.
                        if 112 + case.len_of_extensions() + name_len + gap <= 1 << cluster_bits {
                            cases.push(case);
                        }
                    }
                }
            }
        }
    }
    cases
}
