//! What `info` tells of the encryption of a QCOW2 image, in `qemu-img`'s words and order.

use std::io::{self, Write};

use qed_convert::{LuksHeader, Qcow2Encryption};

use crate::output::JsonWriter;

/// The lines for people, without what they are indented by.
pub(super) fn lines(encryption: Qcow2Encryption, luks: Option<&LuksHeader>) -> Vec<String> {
    let format = format!("    format: {}", encryption.name());
    let Some(luks) = luks else {
        return vec!["encrypt:".to_owned(), format];
    };
    let mut lines = vec!["encrypt:".to_owned(), format!("    ivgen alg: {}", luks.ivgen)];
    lines.push(format!("    detached header: {}", is_detached(luks)));
    lines.push(format!("    hash alg: {}", luks.hash));
    lines.push(format!("    cipher alg: {}", luks.cipher));
    lines.push(format!("    uuid: {}", luks.uuid));
    lines.extend(luks.ivgen_hash.iter().map(|hash| format!("    ivgen hash alg: {hash}")));
    lines.push(format);
    lines.push(format!("    cipher mode: {}", luks.cipher_mode));
    lines.push("    slots:".to_owned());
    for (number, slot) in luks.slots.iter().enumerate() {
        lines.push(format!("        [{number}]:"));
        lines.push(format!("            active: {}", slot.is_active));
        if slot.is_active {
            lines.push(format!("            iters: {}", slot.iterations));
        }
        lines.push(format!("            key offset: {}", slot.key_offset));
        if slot.is_active {
            lines.push(format!("            stripes: {}", slot.stripes));
        }
    }
    lines.push(format!("    payload offset: {}", luks.payload_offset));
    lines.push(format!("    master key iters: {}", luks.master_key_iterations));
    lines
}

/// The member `encrypt`.
pub(super) fn write<W: Write>(
    json: &mut JsonWriter<W>,
    encryption: Qcow2Encryption,
    luks: Option<&LuksHeader>,
) -> io::Result<()> {
    json.key("encrypt")?;
    json.begin_object()?;
    if let Some(luks) = luks {
        json.string_member("ivgen-alg", &luks.ivgen)?;
        json.plain_member("detached-header", is_detached(luks))?;
        json.string_member("hash-alg", &luks.hash)?;
        json.string_member("cipher-alg", &luks.cipher)?;
        json.string_member("uuid", &luks.uuid)?;
        if let Some(hash) = &luks.ivgen_hash {
            json.string_member("ivgen-hash-alg", hash)?;
        }
    }
    json.string_member("format", encryption.name())?;
    if let Some(luks) = luks {
        json.string_member("cipher-mode", &luks.cipher_mode)?;
        slots(json, luks)?;
        json.plain_member("payload-offset", luks.payload_offset)?;
        json.plain_member("master-key-iters", luks.master_key_iterations)?;
    }
    json.end_object()
}

fn slots<W: Write>(json: &mut JsonWriter<W>, luks: &LuksHeader) -> io::Result<()> {
    json.key("slots")?;
    json.begin_array()?;
    for slot in &luks.slots {
        json.begin_object()?;
        json.plain_member("active", slot.is_active)?;
        if slot.is_active {
            json.plain_member("iters", slot.iterations)?;
        }
        json.plain_member("key-offset", slot.key_offset)?;
        if slot.is_active {
            json.plain_member("stripes", slot.stripes)?;
        }
        json.end_object()?;
    }
    json.end_array()
}

/// QEMU takes a header without a place for the data for one of its own file.
fn is_detached(luks: &LuksHeader) -> bool {
    luks.payload_offset == 0
}
