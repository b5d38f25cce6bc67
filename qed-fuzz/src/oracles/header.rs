//! Headers, geometry and entries against the rules of the format in 128 bits, which do not wrap.

use qed_spec::{
    Features, Geometry, GuestOffset, Header, HostOffset, L1Entry, L2Entry, SuperblockCopy,
};

use crate::branches::Branches;
use crate::generators::header::HeaderCase;

/// The magic of an image.
const MAGIC: &[u8] = b"QED\0";
/// Longest backing file name.
const NAME_LEN_MAX: u128 = 4095;

/// A header is accepted if and only if it breaks no rule, refused for a rule that it breaks, and
/// comes back as it was.
///
/// # Panics
/// If it is not so.
pub(crate) fn assert_parsed_by_the_rules(case: &HeaderCase, branches: &mut Branches) {
    let parsed = Header::parse(&case.bytes, case.file_len, Features::CLASSIC);
    branches.note("header", parsed);
    let broken = Fields::of(&case.bytes).map_or_else(|rule| vec![rule], |it| it.broken(case));
    match parsed {
        Ok(header) => {
            assert!(broken.is_empty(), "{header:?} is accepted and breaks {broken:?}");
            assert_round_trip(&header, case);
            assert_name(&header, case, branches);
        }
        Err(error) => {
            let told = format!("{error:?}");
            let is_broken = broken.contains(&rule_of(&told));
            assert!(is_broken, "refused for {told}, but breaks {broken:?}");
        }
    }
}

/// Every conversion of a shape gives what 128 bits give.
///
/// # Panics
/// If one does not.
pub(crate) fn assert_geometry(geometry: Geometry, value: u64) {
    let cluster = u128::from(geometry.cluster_size_bytes());
    let entries = u128::from(geometry.table_size_clusters()) * cluster / 8;
    assert_eq!(u128::from(geometry.table_entries()), entries);
    let most = (entries * entries * cluster).min(u128::from(u64::MAX - 511));
    assert_eq!(u128::from(geometry.max_image_size_bytes()), most);
    let wide = u128::from(value);
    assert_eq!(u128::from(geometry.clusters_for(value).get()), wide.div_ceil(cluster));
    let coverage = entries * cluster;
    assert_eq!(u128::from(geometry.l1_entries_for(value)), wide.div_ceil(coverage));

    let lookup = geometry.lookup(GuestOffset::new(value));
    assert_eq!(lookup.is_some(), wide / coverage < entries, "{value:#x} in {geometry:?}");
    if let Some(lookup) = lookup {
        let (l1, l2) = (wide / coverage, wide / cluster % entries);
        let found = (u128::from(lookup.l1.get()), u128::from(lookup.l2.get()));
        assert_eq!(found, (l1, l2), "{value:#x} in {geometry:?}");
        assert_eq!(u128::from(lookup.within_cluster), wide % cluster);
        let start = geometry.guest_offset(lookup.l1, lookup.l2).map(GuestOffset::get);
        assert_eq!(start, Some(value - lookup.within_cluster));
    }
    assert_entries(geometry, value, wide % cluster == 0);
}

fn assert_entries(geometry: Geometry, value: u64, is_aligned: bool) {
    let l1 = L1Entry::decode(value, geometry);
    assert_eq!(l1.is_ok(), is_aligned, "L1 entry {value:#x}");
    let l2 = L2Entry::decode(value, geometry);
    assert_eq!(l2.is_ok(), is_aligned || value == 1, "L2 entry {value:#x}");
    assert!(l1.is_err() || l1.is_ok_and(|entry| entry.encode(geometry) == value));
    assert!(l2.is_err() || l2.is_ok_and(|entry| entry.encode(geometry) == value));
    match l2 {
        Ok(L2Entry::Unallocated) => assert_eq!(value, 0),
        Ok(L2Entry::Zero) => assert_eq!(value, 1),
        Ok(L2Entry::Data(cluster)) => {
            assert!(value > 1 && geometry.host_offset(cluster) == HostOffset::new(value));
        }
        Err(_) => {}
    }
}

fn assert_round_trip(header: &Header, case: &HeaderCase) {
    let encoded = header.encode();
    assert_eq!(encoded[..], case.bytes[..encoded.len()], "{header:?} is written otherwise");
    assert_eq!(Header::parse(&encoded, case.file_len, Features::CLASSIC), Ok(*header));
    assert_eq!(header.with_fields(*header.fields(), case.file_len), Ok(*header));
    let without = header.with_backing_name_at(None, case.file_len).expect("no name is no fault");
    assert!(!without.features().contains(Features::BACKING_FILE));
    assert_eq!(without.backing_name(&case.bytes), Ok(None));
}

/// The name is the bytes that the header says; the superblocks are read only clear of it.
fn assert_name(header: &Header, case: &HeaderCase, branches: &mut Branches) {
    let name = header.backing_name(&case.bytes);
    branches.note("name", name.map(|name| name.is_some()));
    let area = u128::from(header.header_area_len_bytes());
    let Some((offset, len)) = header.backing_name_place() else {
        assert_eq!(name, Ok(None));
        assert_eq!(SuperblockCopy::both_fit(header), area >= 16384);
        return;
    };
    let (start, end) = (u128::from(offset), u128::from(offset) + u128::from(len));
    assert_eq!(SuperblockCopy::both_fit(header), area >= 16384 && (end <= 8192 || start >= 16384));
    let index = |at: u128| usize::try_from(at).unwrap_or(usize::MAX);
    let expected = case.bytes.get(index(start)..index(end));
    let legal = expected.filter(|bytes| !bytes.contains(&0));
    assert_eq!(name.ok().flatten().map(|name| name.as_bytes()), legal);
}

/// The fields of a header as wide numbers.
struct Fields {
    cluster_size: u128,
    table_size: u128,
    header_size: u128,
    features: u64,
    l1_table_offset: u128,
    image_size: u128,
    backing_offset: u128,
    backing_len: u128,
}

impl Fields {
    /// The fields, or why there are none.
    fn of(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes.get(..64).ok_or("Truncated")?;
        if &header[..4] != MAGIC {
            return Err("Magic");
        }
        let wide = |at: usize, len: usize| {
            let byte = |sum, byte: &u8| (sum << 8) | u128::from(*byte);
            header[at..at + len].iter().rev().fold(0, byte)
        };
        let fields = Self {
            cluster_size: wide(4, 4),
            table_size: wide(8, 4),
            header_size: wide(12, 4),
            features: u64::try_from(wide(16, 8)).expect("eight bytes"),
            l1_table_offset: wide(40, 8),
            image_size: wide(48, 8),
            backing_offset: wide(56, 4),
            backing_len: wide(60, 4),
        };
        if fields.features & !7 == 0 { Ok(fields) } else { Err("UnsupportedFeature") }
    }

    /// Every rule that the header breaks.
    fn broken(&self, case: &HeaderCase) -> Vec<&'static str> {
        let is_power = |value: u128| value.count_ones() == 1;
        let cluster_ok =
            is_power(self.cluster_size) && (4096..=1 << 26).contains(&self.cluster_size);
        let table_ok = is_power(self.table_size) && (1..=16).contains(&self.table_size);
        let mut broken = Vec::new();
        let mut rule = |is_kept: bool, name| {
            if !is_kept {
                broken.push(name);
            }
        };
        rule(cluster_ok, "ClusterSize");
        rule(table_ok, "TableSize");
        if !cluster_ok || !table_ok {
            return broken;
        }
        let file_len = u128::from(case.file_len);
        let clusters = file_len.div_ceil(self.cluster_size);
        rule(self.header_size >= 1 && self.header_size <= clusters, "HeaderSize");
        rule(self.image_size.is_multiple_of(512), "ImageSizeUnaligned");
        let table_len = self.table_size * self.cluster_size;
        let most = (table_len / 8) * (table_len / 8) * self.cluster_size;
        rule(self.image_size <= most && self.image_size <= (1 << 64) - 512, "ImageSizeTooLarge");
        let area = self.header_size * self.cluster_size;
        let l1_ok = self.l1_table_offset.is_multiple_of(self.cluster_size)
            && self.l1_table_offset >= area.max(1)
            && self.l1_table_offset + table_len <= file_len;
        rule(l1_ok, "L1TableOffset");
        let end = self.backing_offset + self.backing_len;
        let name_ok = (1..=NAME_LEN_MAX).contains(&self.backing_len)
            && self.backing_offset >= 64
            && end <= area;
        rule(self.features & 1 == 0 || name_ok, "BackingName");
        broken
    }
}

/// The name of the rule in what `Debug` prints of an error.
fn rule_of(error: &str) -> &str {
    error.split(|char: char| !char.is_alphanumeric()).next().unwrap_or_default()
}
