//! What the library reads in superblock and anchor, with every feature taken for supported.

use qed_io::Storage;
use qed_spec::{
    ANCHOR_LEN_BYTES, Anchor, AnchorError, BackingFormatError, BackingName, ChooseError, Features,
    HEADER_LEN_BYTES, Header, HostOffset, SUPERBLOCK_LEN_BYTES, SuperblockChoice, SuperblockCopy,
    SuperblockError,
};

use crate::answer::{AnchorFound, SuperblockFound};
use crate::vector::{Places, Rejected, StoredFormat, SuperblockCurrent};

/// What an image without either has.
const NO_SUPERBLOCK: SuperblockFound = SuperblockFound {
    current: SuperblockCurrent::None,
    generation: None,
    sections: Vec::new(),
    backing_format: StoredFormat::None,
};
const NO_ANCHOR: AnchorFound = AnchorFound {
    valid: false,
    backing_format: StoredFormat::None,
    superblocks: Places::At(Vec::new()),
};

/// What the image says beside its header.
pub(super) fn read(storage: &dyn Storage) -> (SuperblockFound, AnchorFound) {
    let Some((header, name)) = read_header(storage) else { return (NO_SUPERBLOCK, NO_ANCHOR) };
    let name = name.as_deref().and_then(|name| BackingName::new(name).ok());
    let bytes = Anchor::fits(&header).then(|| bytes_at(storage, Anchor::OFFSET, ANCHOR_LEN_BYTES));
    let anchor = bytes.as_deref().map(Anchor::parse);
    let file_len = storage.len().unwrap_or_default();
    let places = match &anchor {
        Some(Ok(anchor)) => anchor.superblocks_in(&header, file_len),
        _ => Ok(None),
    };
    let copies = match places {
        _ if SuperblockCopy::both_fit(&header) => {
            Some([SuperblockCopy::A, SuperblockCopy::B].map(SuperblockCopy::offset))
        }
        Ok(places) => places,
        Err(_) => None,
    };
    let superblock = copies.map_or(NO_SUPERBLOCK, |copies| superblock(storage, copies, name));
    (superblock, anchor.map_or(NO_ANCHOR, |anchor| of_anchor(anchor, &places, name)))
}

fn read_header(storage: &dyn Storage) -> Option<(Header, Option<Vec<u8>>)> {
    let bytes = bytes_at(storage, HostOffset::new(0), HEADER_LEN_BYTES);
    let all = Features::from_bits_retain(u64::MAX);
    let header = Header::parse(&bytes, storage.len().ok()?, all).ok()?;
    let name = header.backing_name_place().map(|(offset, len)| {
        bytes_at(storage, HostOffset::new(offset.into()), usize::try_from(len).unwrap_or_default())
    });
    Some((header, name))
}

/// Bytes of the image; those that cannot be read are zeros.
fn bytes_at(storage: &dyn Storage, at: HostOffset, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if storage.read_at(&mut bytes, at.get()).is_err() {
        bytes.fill(0);
    }
    bytes
}

fn superblock(
    storage: &dyn Storage,
    copies: [HostOffset; 2],
    name: Option<BackingName<'_>>,
) -> SuperblockFound {
    let [a, b] = copies.map(|at| bytes_at(storage, at, SUPERBLOCK_LEN_BYTES));
    let choice = match SuperblockChoice::new(&a, &b) {
        Ok(choice) => choice,
        Err(ChooseError::Conflict { .. } | ChooseError::Version { .. } | _) => {
            return SuperblockFound { current: SuperblockCurrent::Refused, ..NO_SUPERBLOCK };
        }
    };
    let Some((copy, current)) = choice.current() else { return NO_SUPERBLOCK };
    let backing_format = match name.map(|name| current.backing_format(name)) {
        None | Some(Ok(None)) => StoredFormat::None,
        Some(Ok(Some(format))) => StoredFormat::Is(format.to_owned()),
        Some(Err(SuperblockError::BackingFormat { error, .. })) => of_format(error),
        Some(Err(_)) => StoredFormat::Reject(String::new()),
    };
    SuperblockFound {
        current: match copy {
            SuperblockCopy::A => SuperblockCurrent::A,
            SuperblockCopy::B => SuperblockCurrent::B,
        },
        generation: Some(current.generation().get()),
        sections: current.sections().map(|section| section.kind().get()).collect(),
        backing_format,
    }
}

fn of_anchor(
    anchor: Result<Anchor<'_>, AnchorError>,
    places: &Result<Option<[HostOffset; 2]>, AnchorError>,
    name: Option<BackingName<'_>>,
) -> AnchorFound {
    let anchor = match anchor {
        Ok(anchor) => anchor,
        Err(AnchorError::BackingFormat(error)) => {
            return AnchorFound { backing_format: of_format(error), ..NO_ANCHOR };
        }
        Err(_) => return NO_ANCHOR,
    };
    let format = anchor.backing_format.zip(name).and_then(|(stored, name)| stored.format_of(name));
    AnchorFound {
        valid: true,
        backing_format: format.map_or(StoredFormat::None, |it| StoredFormat::Is(it.to_owned())),
        superblocks: match places {
            Ok(places) => Places::At(places.iter().flatten().map(|at| at.get()).collect()),
            Err(_) => Places::Reject(Rejected { reject: "QED-SB-20".to_owned() }),
        },
    }
}

fn of_format(error: BackingFormatError) -> StoredFormat {
    let clause = match error {
        BackingFormatError::Length { .. } | BackingFormatError::Byte { .. } => "QED-SB-16",
        _ => "QED-SB-15",
    };
    StoredFormat::Reject(clause.to_owned())
}
