//! From a backing file name to a path: relative names, the `file:` prefix, protocols, confinement.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use qed_spec::BackingName;

use super::error::ChainError;

/// The path that `name` means when the image at `image` names it; nothing is resolved.
///
/// A relative name starts from the folder of the image, one with the prefix `file:` from where the
/// program runs, as in QEMU.
// spec: QED-BACK-07
pub(super) fn backing_path(image: &Path, name: BackingName<'_>) -> Result<PathBuf, ChainError> {
    let bytes = name.as_bytes();
    match protocol(bytes) {
        None => {
            let folder = image.parent().unwrap_or(Path::new(""));
            Ok(folder.join(OsStr::from_bytes(bytes)))
        }
        // What is left may look like a protocol again: `./a:b` does not.
        Some((b"file", path)) if !path.starts_with(b"//") => {
            let here = if protocol(path).is_some() { "./" } else { "" };
            Ok([OsStr::new(here), OsStr::from_bytes(path)].join(OsStr::new("")).into())
        }
        Some((protocol, _)) => Err(ChainError::Protocol {
            image: image.to_path_buf(),
            protocol: protocol.escape_ascii().to_string(),
            backing: OsStr::from_bytes(bytes).into(),
        }),
    }
}

/// The path with all links resolved, which must lie below `folder`.
///
/// It guards against names that the author of an image chose, not against another process that changes the
/// folder at this moment.
pub(super) fn confined(path: &Path, folder: &Path) -> Result<PathBuf, ChainError> {
    let (found, folder) = (resolve(path)?, resolve(folder)?);
    if !found.starts_with(&folder) {
        return Err(ChainError::OutsideFolder { path: path.to_path_buf(), folder });
    }
    Ok(found)
}

/// The path with all links resolved; an empty one is the folder in which the program runs.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, ChainError> {
    let failed = |source| ChainError::Resolve { path: path.to_path_buf(), source };
    let here = path.as_os_str().is_empty();
    std::fs::canonicalize(if here { Path::new(".") } else { path }).map_err(failed)
}

/// What stands before and after the first colon, unless a slash comes before it.
fn protocol(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = name.iter().position(|byte| matches!(byte, b':' | b'/'))?;
    let (before, rest) = name.split_at(at);
    rest.strip_prefix(b":").map(|after| (before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(image: &str, name: &str, expected: Result<&str, &str>) {
        let name = BackingName::new(name.as_bytes()).expect("legal");
        let found = backing_path(image.as_ref(), name);
        let found = found.as_deref().map(|path| path.to_str().expect("text"));
        match (found, expected) {
            (Err(ChainError::Protocol { protocol, .. }), Err(expected)) => {
                assert_eq!(protocol, expected);
            }
            (found, expected) => assert_eq!(found.ok(), expected.ok()),
        }
    }

    #[test]
    fn names_are_plain_paths() {
        check("a.qed", "b.raw", Ok("b.raw"));
        check("d/a.qed", "b.raw", Ok("d/b.raw"));
        check("d/a.qed", "../b.raw", Ok("d/../b.raw"));
        check("/d/a.qed", "/b.raw", Ok("/b.raw"));
        check("d/a.qed", "./b:c", Ok("d/./b:c"));
        check("d/a.qed", "file:b:c", Ok("./b:c"));
        check("d/a.qed", "json:{}", Err("json"));
        check("d/a.qed", "nbd://host/x", Err("nbd"));
        check("d/a.qed", "file://host/x", Err("file"));
        check("d/a.qed", "b:c", Err("b"));
        check("d/a.qed", ":c", Err(""));
    }
}
