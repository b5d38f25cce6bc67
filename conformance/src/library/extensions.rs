//! What the library reads in superblock and anchor, with every feature taken for supported.

use qed_io::Storage;
use qed_layout::{FirstSector, SuperblockBytes, read_anchor, read_backing_name};
use qed_spec::{
    Anchor, AnchorError, BackingFormatError, BackingName, ChooseError, Features, HostOffset,
    SuperblockCopy, SuperblockError,
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

/// What the image says beside its header; nothing where it has no legal one.
pub(super) fn read(storage: &dyn Storage) -> (SuperblockFound, AnchorFound) {
    try_read(storage).unwrap_or((NO_SUPERBLOCK, NO_ANCHOR))
}

fn try_read(storage: &dyn Storage) -> Option<(SuperblockFound, AnchorFound)> {
    let file_len = storage.len().ok()?;
    let all = Features::from_bits_retain(u64::MAX);
    let header = FirstSector::read(storage, file_len).ok()?.header(all).ok()?;
    let name = read_backing_name(storage, &header).ok()?;
    let name = name.as_deref().and_then(|name| BackingName::new(name).ok());
    let bytes = read_anchor(storage, &header).ok()?;
    let anchor = bytes.as_ref().map(|bytes| Anchor::parse(bytes));
    let places = match &anchor {
        Some(Ok(anchor)) => anchor.superblocks_in(&header, file_len),
        _ => Ok(None),
    };
    let superblock = match (SuperblockBytes::read(storage, &header).ok()?, places) {
        (Some(bytes), _) => superblock(&bytes, name),
        (None, Ok(Some(places))) => {
            superblock(&SuperblockBytes::read_at(storage, places).ok()?, name)
        }
        (None, _) => NO_SUPERBLOCK,
    };
    Some((superblock, anchor.map_or(NO_ANCHOR, |anchor| of_anchor(anchor, &places, name))))
}

fn superblock(bytes: &SuperblockBytes, name: Option<BackingName<'_>>) -> SuperblockFound {
    let choice = match bytes.choose() {
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
