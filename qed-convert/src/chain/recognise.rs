//! What format the bytes of a file look like: the signatures of the formats that are read here, and
//! of those that other programs keep virtual disks in.
//!
//! Looks at the first and the last 512 bytes and nothing else; knows no other field of any format.

use std::io;

use qed_io::Storage;
use qed_spec::RawHeader;

use super::format::ImageFormat;

/// What a file looks like.
///
/// A guest can write any signature into a raw disk, so this is a guess: it may choose a format only
/// where the user left the choice open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// A format that is read here; raw if nothing speaks for another.
    Readable(ImageFormat),
    /// A format that is not, by QEMU's name. Taken for raw, its own tables would become the disk.
    Foreign(&'static str),
}

/// Bytes at either end of the file that are looked at.
const PROBED_LEN: usize = 512;

/// Where a signature stands.
#[derive(Debug, Clone, Copy)]
enum At {
    /// Bytes from the start of the file.
    Start(usize),
    /// Bytes before its end.
    End(usize),
}

const QED: Recognised = Recognised::Readable(ImageFormat::Qed);
const QCOW2: Recognised = Recognised::Readable(ImageFormat::Qcow2);
const RAW: Recognised = Recognised::Readable(ImageFormat::Raw);
const VMDK: Recognised = Recognised::Foreign("vmdk");
const VPC: Recognised = Recognised::Foreign("vpc");

const QCOW_MAGIC: &[u8] = b"QFI\xfb";

/// The first that fits counts.
const SIGNATURES: &[(At, &[u8], Recognised)] = &[
    (At::Start(0), &RawHeader::MAGIC, QED),
    // The older format has the same magic and version 1.
    (At::Start(0), b"QFI\xfb\0\0\0\x01", Recognised::Foreign("qcow")),
    (At::Start(0), QCOW_MAGIC, QCOW2),
    // Sparse extents of hosted products, of ESX, and the newer ones of ESX.
    (At::Start(0), b"KDMV", VMDK),
    (At::Start(0), b"COWD", VMDK),
    (At::Start(0), b"\xbe\xba\xfe\xca\0\0\0\0", VMDK),
    (At::Start(0), b"# Disk DescriptorFile", VMDK),
    (At::Start(64), b"\x7f\x10\xda\xbe", Recognised::Foreign("vdi")),
    (At::Start(0), b"vhdxfile", Recognised::Foreign("vhdx")),
    (At::Start(0), b"conectix", VPC),
    (At::Start(0), b"WithoutFreeSpace", Recognised::Foreign("parallels")),
    (At::Start(0), b"WithouFreSpacExt", Recognised::Foreign("parallels")),
    (At::Start(0), b"LUKS\xba\xbe", Recognised::Foreign("luks")),
    (At::Start(0), b"Bochs Virtual HD Image", Recognised::Foreign("bochs")),
    (At::Start(0), b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop ", Recognised::Foreign("cloop")),
    // A disk of fixed size has its data first and the footer last; the oldest are a byte shorter.
    (At::End(512), b"conectix", VPC),
    (At::End(511), b"conectix", VPC),
    (At::End(512), b"koly", Recognised::Foreign("dmg")),
];

impl Recognised {
    /// What the first and last bytes of `storage` look like.
    ///
    /// # Errors
    /// The storage's error.
    pub fn of(storage: &dyn Storage) -> io::Result<Self> {
        let head = head(storage)?;
        let tail = bytes(storage, storage.len()?.saturating_sub(PROBED_LEN as u64))?;
        let fits = |(at, signature, _): &&(At, &[u8], Self)| match *at {
            At::Start(at) => head.get(at..).is_some_and(|rest| rest.starts_with(signature)),
            At::End(back) => {
                tail.len().checked_sub(back).is_some_and(|at| tail[at..].starts_with(signature))
            }
        };
        Ok(match SIGNATURES.iter().find(fits) {
            Some((_, _, found)) => *found,
            None if is_vmdk_descriptor(&head) => VMDK,
            None => RAW,
        })
    }
}

/// Whether the magic of `storage` allows that it has the format; anything can be raw.
pub(super) fn has_magic_of(format: ImageFormat, storage: &dyn Storage) -> io::Result<bool> {
    Ok(match format {
        ImageFormat::Raw => true,
        ImageFormat::Qed => head(storage)?.starts_with(&RawHeader::MAGIC),
        ImageFormat::Qcow2 => head(storage)?.starts_with(QCOW_MAGIC),
    })
}

/// Whether the text is what QEMU takes for a descriptor of VMDK: its version, after nothing but
/// comments and empty lines.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    let lines = head.split_inclusive(|byte| *byte == b'\n');
    let mut lines = lines.filter_map(|line| line.strip_suffix(b"\n"));
    let first = lines.find(|line| !line.starts_with(b"#") && !line.trim_ascii().is_empty());
    let version = first.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    matches!(version, Some(b"version=1" | b"version=2" | b"version=3"))
}

fn head(storage: &dyn Storage) -> io::Result<Vec<u8>> {
    bytes(storage, 0)
}

/// The bytes from `start`, as far as they are looked at.
fn bytes(storage: &dyn Storage, start: u64) -> io::Result<Vec<u8>> {
    let there = usize::try_from(storage.len()?.saturating_sub(start)).unwrap_or(PROBED_LEN);
    let mut bytes = vec![0; there.min(PROBED_LEN)];
    storage.read_at(&mut bytes, start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;

    fn recognised(bytes: impl Into<Vec<u8>>) -> Recognised {
        Recognised::of(&MemoryStorage::new(bytes.into())).expect("memory can be read")
    }

    /// A file of `len` bytes with `signature` at `at`.
    fn with(signature: &[u8], at: At, len: usize) -> Vec<u8> {
        let mut bytes = vec![b'.'; len];
        let at = match at {
            At::Start(at) => at,
            At::End(back) => len - back,
        };
        bytes[at..at + signature.len()].copy_from_slice(signature);
        bytes
    }

    #[test]
    fn each_signature_is_found_in_its_place_only() {
        for (at, signature, expected) in SIGNATURES {
            for len in [1024, 1 << 20, 3001] {
                assert_eq!(recognised(with(signature, *at, len)), *expected, "{signature:x?}");
                let elsewhere = match at {
                    At::Start(at) => At::Start(at + 1),
                    At::End(back) => At::End(back - 2),
                };
                assert_eq!(recognised(with(signature, elsewhere, len)), RAW, "{signature:x?}");
            }
        }
    }

    #[test]
    fn a_file_that_ends_in_a_signature_is_raw() {
        for (at, signature, _) in SIGNATURES {
            if let At::Start(at) = at {
                let whole = with(signature, At::Start(*at), at + signature.len());
                let cut = recognised(&whole[..whole.len() - 1]);
                // The magic alone is that of another format.
                let expected = if signature.starts_with(QCOW_MAGIC) && signature.len() > 4 {
                    QCOW2
                } else {
                    RAW
                };
                assert_eq!(cut, expected, "{signature:x?}");
                assert_ne!(recognised(whole), RAW, "{signature:x?}");
            }
        }
        for len in 0..16 {
            assert_eq!(recognised(vec![0; len]), RAW);
        }
    }

    #[test]
    fn descriptors_are_known_by_their_version() {
        for text in [
            "version=1\n",
            "version=2\r\n",
            "# a comment\n\n  \r\n#\nversion=3\nCID=1\n",
            "# Disk DescriptorFile",
        ] {
            assert_eq!(recognised(text), VMDK, "{text:?}");
        }
        for text in ["version=4\n", "version=1", "x\nversion=1\n", "# version=1\n", "# a\n", "\n"] {
            assert_eq!(recognised(text), RAW, "{text:?}");
        }
    }
}
