//! Near-valid headers: a legal one, and a few of its fields changed.

use arbitrary::{Result, Unstructured};
use qed_spec::Geometry;

use crate::generators::number::number;

/// The first bytes of an image, and how long its file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderCase {
    /// From byte 0 of the file; perhaps less than a header.
    pub(crate) bytes: Vec<u8>,
    /// Bytes.
    pub(crate) file_len: u64,
}

/// The fields after the magic: where each lies, and how many bytes it has.
const FIELDS: [(usize, usize); 10] = [
    (4, 4),  // cluster_size
    (8, 4),  // table_size
    (12, 4), // header_size
    (16, 8), // features
    (24, 8), // compat_features
    (32, 8), // autoclear_features
    (40, 8), // l1_table_offset
    (48, 8), // image_size
    (56, 4), // backing_filename_offset
    (60, 4), // backing_filename_size
];

impl HeaderCase {
    /// Any bytes, or a legal header with up to four changes.
    pub(crate) fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        if from.ratio(1, 16)? {
            let file_len = number(from, &[])?;
            let len = from.len().min(4096);
            return Ok(Self { bytes: from.bytes(len)?.to_vec(), file_len });
        }
        let geometry = any_geometry(from)?;
        let mut case = Self::legal(from, geometry)?;
        for _ in 0..from.int_in_range(0..=4)? {
            case.change(from, geometry)?;
        }
        Ok(case)
    }

    fn legal(from: &mut Unstructured<'_>, geometry: Geometry) -> Result<Self> {
        let cluster = geometry.cluster_size_bytes();
        let header_size = from.int_in_range(1..=5)?;
        let l1 = (header_size + from.int_in_range(0..=3)?) * cluster;
        let file_len = l1 + geometry.table_size_bytes() + from.int_in_range(0..=3)? * cluster / 2;
        let size = number(from, &[0, cluster, geometry.max_image_size_bytes()])?;
        let features = from.int_in_range(0..=7)?;
        let mut case = Self { bytes: vec![0; 4096], file_len };
        case.bytes[..4].copy_from_slice(b"QED\0");
        let name_len = from.int_in_range(1..=80)?;
        let values = [
            cluster,
            geometry.table_size_clusters(),
            header_size,
            features,
            0,
            0,
            l1,
            size.min(geometry.max_image_size_bytes()) & !511,
            if features & 1 == 0 { 0 } else { 64 },
            if features & 1 == 0 { 0 } else { name_len },
        ];
        for (field, value) in values.into_iter().enumerate() {
            case.put(field, value);
        }
        case.bytes[64..64 + 80].fill(b'n');
        Ok(case)
    }

    fn change(&mut self, from: &mut Unstructured<'_>, geometry: Geometry) -> Result<()> {
        let cluster = geometry.cluster_size_bytes();
        let landmarks = [
            cluster,
            self.file_len,
            self.file_len.saturating_sub(geometry.table_size_bytes()),
            self.file_len / cluster,
            geometry.max_image_size_bytes(),
            64,
            4095,
            8192,
            12288,
            16384,
        ];
        match from.int_in_range(0..=15)? {
            0 => self.file_len = number(from, &landmarks)?,
            1 => {
                let len = from.int_in_range(0..=128)?;
                self.bytes.truncate(len);
            }
            2 => {
                let at = from.int_in_range(0..=159)?;
                if let Some(byte) = self.bytes.get_mut(at) {
                    *byte = from.arbitrary()?;
                }
            }
            3 => {
                let bit = 1 << from.int_in_range(0..=63)?;
                let field = from.int_in_range(3..=5)?;
                self.put(field, bit);
            }
            _ => {
                let field = from.choose_index(FIELDS.len())?;
                let value = number(from, &landmarks)?;
                self.put(field, value);
            }
        }
        Ok(())
    }

    fn put(&mut self, field: usize, value: u64) {
        let (at, len) = FIELDS[field];
        if let Some(bytes) = self.bytes.get_mut(at..at + len) {
            bytes.copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }
}

/// Any of the 75 shapes, the smallest most often.
pub(crate) fn any_geometry(from: &mut Unstructured<'_>) -> Result<Geometry> {
    let bits = if from.arbitrary()? { 12 } else { from.int_in_range(12..=26)? };
    let table_size = 1 << from.int_in_range(0..=4)?;
    Ok(Geometry::new(1 << bits, table_size).expect("every pair is legal"))
}
