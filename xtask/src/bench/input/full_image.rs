//! A QED image with very many allocated clusters and no data: header and tables are written, the
//! data clusters are holes. Written from the format's text alone, so that no code under test makes
//! its own input.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// The header's fields, and the same in bytes.
const CLUSTER_SIZE_FIELD: u32 = 64 << 10;
const TABLE_SIZE_FIELD: u32 = 4;
const CLUSTER_SIZE: u64 = CLUSTER_SIZE_FIELD as u64;
const TABLE_SIZE: u64 = TABLE_SIZE_FIELD as u64 * CLUSTER_SIZE;
const TABLE_ENTRIES: u64 = TABLE_SIZE / 8;
/// Data lies in runs of this many clusters, and the runs in mixed order, as in a disk that was
/// filled over time.
const RUN: u64 = 64;
/// A prime that no number of runs here is a multiple of: stepping by it visits every run once.
const RUN_STEP: u64 = 1_000_003;

/// Writes an image with `clusters` allocated clusters, a multiple of 64, to `path`.
///
/// # Errors
/// The file could not be written.
pub(super) fn write(path: &Path, clusters: u64) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let l2_tables = clusters.div_ceil(TABLE_ENTRIES);
    let l1_offset = CLUSTER_SIZE;
    let l2_offset = |table: u64| l1_offset + (1 + table) * TABLE_SIZE;
    let data_offset = l2_offset(l2_tables);

    let mut out = BufWriter::new(&file);
    out.write_all(&header(l1_offset, clusters * CLUSTER_SIZE))?;
    let l1 = (0..TABLE_ENTRIES).map(|index| if index < l2_tables { l2_offset(index) } else { 0 });
    write_entries(&mut out, l1)?;
    let l2 = (0..l2_tables * TABLE_ENTRIES).map(|index| match index < clusters {
        true => data_offset + mixed(index, clusters) * CLUSTER_SIZE,
        false => 0,
    });
    write_entries(&mut out, l2)?;
    out.flush()?;
    file.set_len(data_offset + clusters * CLUSTER_SIZE)?;
    file.sync_all()?;
    Ok(())
}

/// Where in the data area the guest cluster `index` lies.
fn mixed(index: u64, clusters: u64) -> u64 {
    let runs = clusters / RUN;
    (index / RUN * RUN_STEP % runs) * RUN + index % RUN
}

/// The header, padded to its cluster.
fn header(l1_offset: u64, image_size: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(CLUSTER_SIZE_FIELD as usize);
    header.extend_from_slice(b"QED\0");
    for field in [CLUSTER_SIZE_FIELD, TABLE_SIZE_FIELD, 1] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    let no_features = [0; 3];
    for field in no_features.into_iter().chain([l1_offset, image_size]) {
        header.extend_from_slice(&field.to_le_bytes());
    }
    header.resize(CLUSTER_SIZE_FIELD as usize, 0);
    header
}

fn write_entries(out: &mut impl Write, entries: impl Iterator<Item = u64>) -> Result<()> {
    for entry in entries {
        out.write_all(&entry.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_cluster_is_given_out_once() {
        for clusters in [64, 6400, 640_000] {
            let given: HashSet<u64> = (0..clusters).map(|index| mixed(index, clusters)).collect();
            assert_eq!(given.len() as u64, clusters);
            assert!(given.iter().all(|cluster| *cluster < clusters));
        }
    }

    #[test]
    fn the_header_has_its_fields_where_the_format_says() {
        let header = header(65536, 640_000 << 16);
        assert_eq!(header.len(), 65536);
        assert_eq!(header[40..48], 65536_u64.to_le_bytes());
        assert_eq!(header[48..56], (640_000_u64 << 16).to_le_bytes());
    }
}
