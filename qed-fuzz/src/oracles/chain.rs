//! Backing chains walked by a slow and plain rule, beside the library.

use std::path::PathBuf;

use qed_convert::chain::{
    Chain, ChainError, ChainOptions, FormatSource, ImageFormat, Layer, TrustMagic,
};
use qed_core::VirtualDisk;

use crate::branches::Branches;
use crate::generators::chain_files::{CLUSTER, ChainFiles, FILES, Name};
use crate::operation::content;
use crate::size::usize_of;

/// One layer of an expected chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    file: Place,
    format: ImageFormat,
    is_recognised: bool,
}

/// Which file a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    File(usize),
    Outside,
}

/// The library walks from the first file to the layers that it should, or fails for the reason
/// that it should; and the disk reads as the layers do.
///
/// # Panics
/// If it does not.
pub(crate) fn assert_walked(
    files: &ChainFiles,
    top: FormatSource,
    options: &ChainOptions,
    branches: &mut Branches,
) {
    let expected = expected(files, top, options);
    let walked = Chain::walk(&files.path(0), top, options);
    branches.note("chain", walked.as_ref().map(|chain| chain.layers().len()));
    let chain = match (walked, expected) {
        (Ok(chain), Ok(expected)) => {
            let paths: Vec<_> = chain.layers().iter().map(|layer| found(files, layer)).collect();
            assert_eq!(paths, expected);
            chain
        }
        (Err(error), Err(reason)) => return assert_eq!(reason_of(&error), reason, "{error:?}"),
        (walked, expected) => panic!("{walked:?}, not {expected:?}"),
    };
    let disk = chain.open(None).expect("all headers were read");
    let layers: Vec<Link> = chain.layers().iter().map(|layer| found(files, layer)).collect();
    assert_reads(files, &layers, &*disk);
}

/// What `layer` is of the files.
fn found(files: &ChainFiles, layer: &Layer) -> Link {
    let path: PathBuf = std::fs::canonicalize(layer.path()).expect("it was opened by this path");
    let root = std::fs::canonicalize(files.folder()).expect("the folder is there");
    let number = FILES.iter().position(|file| root.join(file) == path);
    let outside = std::fs::canonicalize(files.outside()).expect("the file is there");
    let file = match number {
        Some(number) => Place::File(number),
        None => {
            assert_eq!(path, outside);
            Place::Outside
        }
    };
    Link { file, format: layer.format(), is_recognised: layer.is_recognised() }
}

fn expected(
    files: &ChainFiles,
    top: FormatSource,
    options: &ChainOptions,
) -> Result<Vec<Link>, &'static str> {
    let mut layers = vec![open(files, Place::File(0), top)?];
    loop {
        let last = layers[layers.len() - 1];
        let Place::File(number) = last.file else { return Ok(layers) };
        let backing = files.files[number].backing;
        let Some((name, stated)) = backing.filter(|_| last.format != ImageFormat::Raw) else {
            return Ok(layers);
        };
        if name == Name::Protocol {
            return Err("Protocol");
        }
        let stated = files.files[number].stated(stated);
        let format = stated_format(last, stated, layers.len() - 1, options)?;
        let place = place(files, name, options.confine_to.is_some())?;
        let format = match format {
            Some(format) => FormatSource::Stated(format),
            None if is_trusted(number, place, &options.trust_magic) => FormatSource::Magic,
            None => return Err("FormatUnstated"),
        };
        let next = open(files, place.ok_or("Open")?, format)?;
        if layers.iter().any(|layer| layer.file == next.file) {
            return Err("Loop");
        }
        layers.push(next);
    }
}

/// What states the format of what `above` names.
fn stated_format(
    above: Link,
    stored: Option<&'static str>,
    level: usize,
    options: &ChainOptions,
) -> Result<Option<ImageFormat>, &'static str> {
    let caller = options.backing_formats.get(level).copied();
    match stored {
        _ if above.is_recognised && caller.is_some() => Ok(caller),
        Some("raw") => Ok(Some(ImageFormat::Raw)),
        Some("qed") => Ok(Some(ImageFormat::Qed)),
        Some("qcow2") => Ok(Some(ImageFormat::Qcow2)),
        Some(_) => Err("FormatUnknown"),
        None => Ok(caller),
    }
}

/// Where a name leads; none if no file is there.
fn place(files: &ChainFiles, name: Name, confined: bool) -> Result<Option<Place>, &'static str> {
    Ok(match name {
        Name::Relative(to) | Name::Winding(to) | Name::Absolute(to) | Name::FilePrefix(to) => {
            Some(Place::File(usize::from(to) % FILES.len()))
        }
        Name::Link => Some(Place::File(files.link)),
        Name::Outside | Name::LinkOutside if confined => return Err("OutsideFolder"),
        Name::Outside | Name::LinkOutside => Some(Place::Outside),
        Name::Missing if confined => return Err("Resolve"),
        Name::Missing | Name::Folder => None,
        Name::Protocol => return Err("Protocol"),
    })
}

/// Whether the first bytes of what file `number` names may say its format.
fn is_trusted(number: usize, place: Option<Place>, trust: &TrustMagic) -> bool {
    let is_below = |number: usize| FILES[number].contains('/');
    match (trust, place) {
        (TrustMagic::Always, _) => true,
        (TrustMagic::Never, _) | (_, Some(Place::Outside)) => false,
        // That there is nothing to look into is found first.
        (TrustMagic::Near(_), None) => true,
        // The one folder that is allowed is that of all files.
        (TrustMagic::Near(folders), Some(Place::File(to))) => {
            !folders.is_empty() || !is_below(number) || is_below(to)
        }
    }
}

fn open(files: &ChainFiles, file: Place, format: FormatSource) -> Result<Link, &'static str> {
    let actual = match file {
        Place::File(number) => files.files[number].format,
        Place::Outside => ImageFormat::Raw,
    };
    match format {
        FormatSource::Magic => Ok(Link { file, format: actual, is_recognised: true }),
        FormatSource::Stated(format) if format == ImageFormat::Raw || format == actual => {
            Ok(Link { file, format, is_recognised: false })
        }
        FormatSource::Stated(_) => Err("NotInFormat"),
    }
}

/// The disk has the clusters of the first layer that has them.
fn assert_reads(files: &ChainFiles, layers: &[Link], disk: &dyn VirtualDisk) {
    let mut bytes = vec![0xee; usize_of(disk.len())];
    disk.read_at(&mut bytes, 0).expect("every layer can be read");
    for (cluster, found) in (0..).zip(bytes.chunks(usize_of(CLUSTER))) {
        let mut expected = vec![0; found.len()];
        for layer in layers {
            if let Some(bytes) = own_bytes(files, *layer, cluster) {
                let len = bytes.len().min(expected.len());
                expected[..len].copy_from_slice(&bytes[..len]);
                break;
            }
        }
        assert!(found == expected, "cluster {cluster} of {layers:?}");
    }
}

/// What a layer itself has of a cluster; for a raw one that is all there is.
fn own_bytes(files: &ChainFiles, layer: Link, cluster: u64) -> Option<Vec<u8>> {
    let range = cluster * CLUSTER..(cluster + 1) * CLUSTER;
    let (path, number) = match layer.file {
        Place::File(number) => (files.path(number), number),
        Place::Outside => (files.outside(), 0),
    };
    if layer.format == ImageFormat::Raw {
        let bytes = std::fs::read(path).expect("the file is there");
        let clip = |at: u64| usize_of(at.min(bytes.len() as u64));
        return Some(bytes[clip(range.start)..clip(range.end)].to_vec());
    }
    let file = &files.files[number];
    let has = layer.format == ImageFormat::Qed && cluster < 8 && file.has >> cluster & 1 == 1;
    if cluster >= file.clusters {
        return Some(Vec::new());
    }
    let fill = u8::try_from(number).expect("few files");
    has.then(|| content(fill, range))
}

/// The variant of the error.
fn reason_of(error: &ChainError) -> &'static str {
    match error {
        ChainError::Open { .. } => "Open",
        ChainError::NotInFormat { .. } => "NotInFormat",
        ChainError::Protocol { .. } => "Protocol",
        ChainError::FormatUnstated { .. } => "FormatUnstated",
        ChainError::FormatUnknown { .. } => "FormatUnknown",
        ChainError::Loop { .. } => "Loop",
        ChainError::Resolve { .. } => "Resolve",
        ChainError::OutsideFolder { .. } => "OutsideFolder",
        _ => "another",
    }
}
