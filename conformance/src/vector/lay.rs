//! Making the files of a vector. They are sparse: only what the vector gives is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Bytes, Header, HeaderFields, Run, Vector};

/// The name of the image in its folder.
pub const IMAGE_NAME: &str = "image.qed";
/// Bytes of a fill that are written at once.
const CHUNK: usize = 64 << 10;

/// Makes the image and the files beside it in `folder`, and returns the path of the image.
///
/// # Errors
/// A file cannot be made; a very long one only where the file system allows its length.
pub fn lay(vector: &Vector, folder: &Path) -> io::Result<PathBuf> {
    for file in &vector.files {
        lay_file(&folder.join(&file.name), file.len, &file.header, &file.runs)?;
    }
    let image = folder.join(IMAGE_NAME);
    lay_file(&image, vector.file_len, &vector.header, &vector.runs)?;
    Ok(image)
}

fn lay_file(path: &Path, len: u64, header: &Header, runs: &[Run]) -> io::Result<()> {
    let file = File::create_new(path)?;
    file.set_len(len)?;
    if let Header::Fields(fields) = header {
        let bytes = encode(fields);
        let there = usize::try_from(len).unwrap_or(bytes.len()).min(bytes.len());
        file.write_all_at(&bytes[..there], 0)?;
    }
    runs.iter().try_for_each(|run| lay_run(&file, run))
}

fn lay_run(file: &File, Run { at, bytes }: &Run) -> io::Result<()> {
    match bytes {
        Bytes::Literal(bytes) => file.write_all_at(bytes, *at),
        Bytes::Fill { byte, len } => {
            let chunk = vec![*byte; CHUNK];
            let mut done = 0;
            while done < *len {
                let now = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
                file.write_all_at(&chunk[..now], at + done)?;
                done += now as u64;
            }
            Ok(())
        }
    }
}

/// The header as it stands on disk, written out here so that no vector rests on the code under
/// test.
fn encode(fields: &HeaderFields) -> [u8; 64] {
    let HeaderFields { cluster_size, table_size, header_size, .. } = *fields;
    let HeaderFields { features, compat_features, autoclear_features, .. } = *fields;
    let HeaderFields { l1_table_offset, image_size, .. } = *fields;
    let HeaderFields { backing_filename_offset, backing_filename_size, .. } = *fields;
    let mut bytes = Vec::from(b"QED\0");
    for number in [cluster_size, table_size, header_size] {
        bytes.extend(number.to_le_bytes());
    }
    let wide = [features, compat_features, autoclear_features, l1_table_offset, image_size];
    for number in wide {
        bytes.extend(number.to_le_bytes());
    }
    for number in [backing_filename_offset, backing_filename_size] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.try_into().expect("four bytes, five numbers of 4 and five of 8")
}
