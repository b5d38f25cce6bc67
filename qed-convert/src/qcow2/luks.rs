//! What the LUKS header inside an encrypted image says, to be shown. No key is looked at.

use qed_io::Storage;
use zerocopy::FromBytes;

use super::header::Qcow2Header;
use super::raw::{RawLuksHeader, RawLuksPlace};

const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
const SLOT_ACTIVE: u32 = 0x00ac_71f3;
const SECTOR: u64 = 512;

/// The LUKS header of an image, its names as they stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LuksHeader {
    /// The cipher and the bits of its key, such as `aes-256`.
    pub cipher: String,
    /// The mode of the cipher, such as `xts`.
    pub cipher_mode: String,
    /// How initialisation vectors are made, such as `plain64`.
    pub ivgen: String,
    /// The hash that the making of initialisation vectors needs.
    pub ivgen_hash: Option<String>,
    /// The hash that keys are derived with.
    pub hash: String,
    /// The identity of the encrypted volume.
    pub uuid: String,
    /// Bytes from the start of the LUKS header to the encrypted data.
    pub payload_offset: u64,
    /// Iterations of the digest of the master key.
    pub master_key_iterations: u32,
    /// The slots for keys.
    pub slots: Vec<LuksSlot>,
}

/// A slot for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LuksSlot {
    /// Whether it holds a key.
    pub is_active: bool,
    /// Iterations of the derivation of the key.
    pub iterations: u32,
    /// Bytes from the start of the LUKS header to the material of the key.
    pub key_offset: u64,
    /// Pieces that the key is split into.
    pub stripes: u32,
}

impl Qcow2Header {
    /// Reads the LUKS header of the image in `storage`; none where there is none that can be read.
    #[must_use]
    pub fn read_luks(&self, storage: &dyn Storage) -> Option<LuksHeader> {
        let place = RawLuksPlace::read_from_bytes(self.luks_place()?).ok()?;
        let mut bytes = [0; size_of::<RawLuksHeader>()];
        let end = place.offset.get().checked_add(bytes.len() as u64)?;
        if place.len.get() < bytes.len() as u64 || storage.len().ok()? < end {
            return None;
        }
        storage.read_at(&mut bytes, place.offset.get()).ok()?;
        let raw = RawLuksHeader::ref_from_bytes(&bytes).ok()?;
        (raw.magic == MAGIC && raw.version.get() == 1).then(|| LuksHeader::of(raw))
    }
}

impl LuksHeader {
    fn of(raw: &RawLuksHeader) -> Self {
        let mode = text(&raw.cipher_mode);
        let (cipher_mode, ivgen) = mode.split_once('-').unwrap_or((&mode, ""));
        let (ivgen, ivgen_hash) = match ivgen.split_once(':') {
            Some((ivgen, hash)) => (ivgen, Some(hash.to_owned())),
            None => (ivgen, None),
        };
        // XTS has two keys.
        let keys = if cipher_mode == "xts" { 2 } else { 1 };
        let key_bits = u64::from(raw.key_bytes.get()) * 8 / keys;
        Self {
            cipher: format!("{}-{key_bits}", text(&raw.cipher_name)),
            cipher_mode: cipher_mode.to_owned(),
            ivgen: ivgen.to_owned(),
            ivgen_hash,
            hash: text(&raw.hash),
            uuid: text(&raw.uuid),
            payload_offset: u64::from(raw.payload_sector.get()) * SECTOR,
            master_key_iterations: raw.digest_iterations.get(),
            slots: raw.slots.each_ref().map(slot).to_vec(),
        }
    }
}

fn slot(raw: &super::raw::RawLuksSlot) -> LuksSlot {
    LuksSlot {
        is_active: raw.active.get() == SLOT_ACTIVE,
        iterations: raw.iterations.get(),
        key_offset: u64::from(raw.key_sector.get()) * SECTOR,
        stripes: raw.stripes.get(),
    }
}

/// A field that is padded with NUL; what is not ASCII is escaped.
fn text(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    text.escape_ascii().to_string()
}
