//! The undo record of a conversion in place.

use qed_spec::{UNDO_RECORD_LEN_BYTES, UndoRecord, UndoRecordError};

fn record() -> UndoRecord {
    UndoRecord { old_len: 0x1234_5678_9abc, old_sector: [7; 512], new_sector: [9; 512] }
}

// spec-test: QED-CONV-01
#[test]
fn a_record_is_what_the_table_says() {
    let bytes = record().encode();
    assert_eq!(UndoRecord::OFFSET.get() + UNDO_RECORD_LEN_BYTES as u64, 4096);
    assert_eq!(&bytes[..4], b"QEDU");
    assert_eq!(bytes[4..8], 1_u32.to_le_bytes());
    assert_eq!(bytes[12..16], [0; 4]);
    assert_eq!(bytes[16..24], 0x1234_5678_9abc_u64.to_le_bytes());
    assert!(bytes[24..536].iter().all(|byte| *byte == 7));
    assert!(bytes[536..1048].iter().all(|byte| *byte == 9));
    assert!(bytes[1048..].iter().all(|byte| *byte == 0));
    assert_eq!(UndoRecord::parse(&bytes), Ok(record()));
}

// spec-test: QED-CONV-01
#[test]
fn every_byte_counts() {
    let bytes = record().encode();
    for at in 0..bytes.len() {
        let mut changed = bytes;
        changed[at] ^= 0x40;
        let error = UndoRecord::parse(&changed).unwrap_err();
        let is_magic = matches!(error, UndoRecordError::Magic { .. });
        let is_checksum = matches!(error, UndoRecordError::Checksum { .. });
        assert!(if at < 4 { is_magic } else { is_checksum }, "byte {at}: {error}");
    }
    let error = UndoRecord::parse(&bytes[1..]).unwrap_err();
    assert_eq!(error, UndoRecordError::Truncated { found: 1535 });
}

/// The checksum as its definition has it, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

// spec-test: QED-CONV-01
#[test]
fn an_intact_record_with_other_rules_is_refused() {
    let cases = [
        (4, UndoRecordError::Version { found: 0 }),
        (12, UndoRecordError::Padding),
        (1048, UndoRecordError::Padding),
        (1535, UndoRecordError::Padding),
    ];
    for (at, expected) in cases {
        let mut bytes = record().encode();
        bytes[at] ^= 1;
        bytes[8..12].fill(0);
        let crc = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(UndoRecord::parse(&bytes), Err(expected), "byte {at}");
    }
}
