//! File names as they are given: the `file:` prefix, protocols that are not files, and names that
//! are relative to the image that holds them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::failure::shown;

/// The path that a name on the command line means.
///
/// # Errors
/// A name with a protocol other than `file:`, which a name like `./a:b` has not.
pub(crate) fn path_of(name: &OsStr) -> anyhow::Result<PathBuf> {
    let bytes = name.as_bytes();
    if let Some(path) = bytes.strip_prefix(b"file:") {
        return Ok(plain(path));
    }
    match protocol(bytes) {
        Some(protocol) => bail!("Unknown protocol '{}'", shown(OsStr::from_bytes(protocol))),
        None => Ok(name.into()),
    }
}

/// A path as a name that has no protocol.
fn plain(path: &[u8]) -> PathBuf {
    let here: &[u8] = if protocol(path).is_some() { b"./" } else { b"" };
    OsString::from_vec([here, path].concat()).into()
}

/// What stands before the first colon, unless that is in a later component of the path.
pub(crate) fn protocol(name: &[u8]) -> Option<&[u8]> {
    let at = name.iter().position(|byte| matches!(byte, b':' | b'/'))?;
    (name[at] == b':').then(|| &name[..at])
}

/// The name of a backing file as seen from where the program runs: relative to the folder of the
/// image that names it, with nothing resolved.
pub(crate) fn beside(image: &Path, backing: &[u8]) -> OsString {
    let image = image.as_os_str().as_bytes();
    let folder = image.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let stays = backing.starts_with(b"/") || protocol(backing).is_some();
    let mut path = if stays { Vec::new() } else { image[..folder].to_vec() };
    path.extend_from_slice(backing);
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_the_only_protocol() {
        let path = |name: &str| path_of(name.as_ref()).map_err(|error| error.to_string());
        assert_eq!(path("a"), Ok("a".into()));
        assert_eq!(path("file:a:b"), Ok("./a:b".into()));
        assert_eq!(path("./a:b"), Ok("./a:b".into()));
        assert_eq!(path("nbd://x"), Err("Unknown protocol 'nbd'".into()));
        assert_eq!(path("json:{}"), Err("Unknown protocol 'json'".into()));
    }

    #[test]
    fn backing_names_are_relative_to_their_image() {
        let beside = |image: &str, name: &str| beside(image.as_ref(), name.as_bytes());
        assert_eq!(beside("a.qed", "b.raw"), "b.raw");
        assert_eq!(beside("d/a.qed", "../b.raw"), "d/../b.raw");
        assert_eq!(beside("d/a.qed", "/b.raw"), "/b.raw");
        assert_eq!(beside("d/a.qed", "file:b.raw"), "file:b.raw");
    }
}
