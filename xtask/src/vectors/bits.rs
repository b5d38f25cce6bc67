//! Every bit of the three fields of feature bits.

use super::vector::{Bytes, Expect, Family, Header, Opening, Qemu, Run, Vector};

pub(super) fn families() -> Vec<Family> {
    let (accepted, refused) = (0..64).map(feature).partition(is_accepted);
    vec![
        Family {
            name: "features-accept",
            about: &["The one bit of features that an image may have alone."],
            vectors: accepted,
        },
        Family {
            name: "features-reject",
            about: &[
                "Every other bit of features alone. Bit 0 wants a name that is not there; bit 1 keeps an image",
                "from being written; the others keep it from being opened.",
            ],
            vectors: refused,
        },
        Family {
            name: "compat-features-accept",
            about: &[
                "Every bit of compat_features: the image opens and is written, and the bit is kept.",
            ],
            vectors: (0..64).map(compatible).collect(),
        },
        Family {
            name: "autoclear-features-accept",
            about: &[
                "Every bit of autoclear_features: an open for writing clears it, one for reading does not.",
            ],
            vectors: (0..64).map(autoclear).collect(),
        },
    ]
}

/// Where the header ends that is laid here, and the L1 table behind it.
const FILE_LEN: u64 = 0x5_0000;

fn is_accepted(vector: &Vector) -> bool {
    vector.expect.open.is_ok() && vector.expect.write.is_none()
}

fn feature(bit: u32) -> Vector {
    let (open, write, clause, what): (Opening, Option<Opening>, _, _) = match bit {
        0 => (Err("QED-BACK-03"), None, "QED-FEAT-04", "BACKING_FILE without a name"),
        1 => (Ok(()), Some(Err("QED-CONS-01")), "QED-FEAT-04", "NEED_CHECK"),
        2 => (Ok(()), None, "QED-FEAT-09", "BACKING_FORMAT_NO_PROBE without a backing file"),
        32 => (Err("QED-FEAT-01"), None, "QED-FEAT-05", "JOURNAL_ACTIVE"),
        33 => (Err("QED-FEAT-01"), None, "QED-FEAT-05", "SNAPSHOTS"),
        34 => (Err("QED-FEAT-01"), None, "QED-FEAT-05", "COMPRESSED"),
        35 => (Err("QED-FEAT-01"), None, "QED-FEAT-05", "ENCRYPTED"),
        36 => (Ok(()), None, "QED-FEAT-05", "CONVERSION_HOLD"),
        _ => (Err("QED-FEAT-01"), None, "QED-FEAT-01", "unknown"),
    };
    let mut clauses = vec![clause];
    clauses.extend(open.err().or(write.and_then(Opening::err)).filter(|it| *it != clause));
    let is_open = open.is_ok();
    Vector {
        name: format!("features-bit-{bit}"),
        clauses,
        what: what.to_owned(),
        file_len: FILE_LEN,
        header: Header { features: 1 << bit, ..Header::default() },
        runs: Vec::new(),
        expect: Expect { write, check: is_open.then_some("clean"), ..Expect::of(open) },
        qemu: match bit {
            0 => Some(Qemu::answers("open", "accept", "QED-QEMU-07: an empty name is accepted")),
            36 => Some(Qemu::refuses("QED-CONV-05: it is kept from writing")),
            _ => None,
        },
    }
}

fn compatible(bit: u32) -> Vector {
    let header = Header { compat_features: 1 << bit, ..Header::default() };
    kept(format!("compat-bit-{bit}"), "QED-FEAT-02", header, [0, 1 << bit, 0])
}

fn autoclear(bit: u32) -> Vector {
    let header = Header { autoclear_features: 1 << bit, ..Header::default() };
    kept(format!("autoclear-bit-{bit}"), "QED-FEAT-03", header, [0, 0, 0])
}

/// An image that opens; after it was open for writing its three fields are `fields`.
fn kept(name: String, clause: &'static str, header: Header, fields: [u64; 3]) -> Vector {
    Vector {
        clauses: vec![clause],
        what: format!("{} alone", name.replace('-', " ")),
        name,
        file_len: FILE_LEN,
        header,
        runs: Vec::new(),
        expect: Expect {
            check: Some("clean"),
            after_write: vec![Run { at: 16, bytes: Bytes::U64(fields.to_vec()) }],
            ..Expect::accept()
        },
        qemu: None,
    }
}
