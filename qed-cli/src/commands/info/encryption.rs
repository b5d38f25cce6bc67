//! What `info` tells of the encryption of a QCOW2 image, in `qemu-img`'s words and order.

use qed_convert::qcow2::{LuksHeader, Qcow2Encryption};
use serde_json::{Value, json};

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
pub(super) fn json(encryption: Qcow2Encryption, luks: Option<&LuksHeader>) -> Value {
    json!({
        "ivgen-alg": luks.map(|luks| &luks.ivgen),
        "detached-header": luks.map(is_detached),
        "hash-alg": luks.map(|luks| &luks.hash),
        "cipher-alg": luks.map(|luks| &luks.cipher),
        "uuid": luks.map(|luks| &luks.uuid),
        "ivgen-hash-alg": luks.and_then(|luks| luks.ivgen_hash.as_ref()),
        "format": encryption.name(),
        "cipher-mode": luks.map(|luks| &luks.cipher_mode),
        "slots": luks.map(slots),
        "payload-offset": luks.map(|luks| luks.payload_offset),
        "master-key-iters": luks.map(|luks| luks.master_key_iterations),
    })
}

fn slots(luks: &LuksHeader) -> Vec<Value> {
    let slots = luks.slots.iter().map(|slot| {
        json!({
            "active": slot.is_active,
            "iters": slot.is_active.then_some(slot.iterations),
            "key-offset": slot.key_offset,
            "stripes": slot.is_active.then_some(slot.stripes),
        })
    });
    slots.collect()
}

/// QEMU takes a header without a place for the data for one of its own file.
fn is_detached(luks: &LuksHeader) -> bool {
    luks.payload_offset == 0
}
