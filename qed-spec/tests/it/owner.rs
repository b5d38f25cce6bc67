//! The owner of an image: every rule at its bound, and what is kept of a host name.

use core::num::NonZeroU64;

use qed_spec::{ImageOwner, ImageOwnerError};

const TOKEN: NonZeroU64 = NonZeroU64::new(0x1122_3344_5566_7788).expect("not zero");
const BOOT: [u8; 16] = *b"0123456789abcdef";

fn payload(host_name: [u8; 16]) -> Vec<u8> {
    let numbers = [TOKEN.get(), 1_700_000_000].map(u64::to_le_bytes);
    [numbers.as_flattened(), &BOOT, &host_name].concat()
}

// spec-test: QED-HAND-02
#[test]
fn an_owner_is_what_its_bytes_say() {
    let names: [(&[u8], [u8; 16]); 5] = [
        (b"", [0; 16]),
        (b"a", *b"a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        (b"fifteen-letters", *b"fifteen-letters\0"),
        (b"sixteen--letters", *b"sixteen--letters"),
        (b"\xff\x01", *b"\xff\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    for (name, stored) in names {
        let bytes = payload(stored);
        let owner = ImageOwner::parse(&bytes).expect("legal");
        assert_eq!((owner.token(), owner.since()), (Some(TOKEN), 1_700_000_000));
        assert_eq!((owner.boot_id(), owner.host_name()), (&BOOT, name));
        assert_eq!(owner.encode(), *bytes);
        assert_eq!(ImageOwner::new(TOKEN, 1_700_000_000, BOOT, name), owner);
    }
}

// spec-test: QED-HAND-02
#[test]
fn a_token_of_zero_is_nobody_whatever_else_is_there() {
    let mut bytes = payload(*b"the last one was");
    bytes[..8].fill(0);
    let nobody = ImageOwner::parse(&bytes).expect("legal");
    assert_eq!((nobody.token(), nobody.host_name()), (None, &b"the last one was"[..]));
    assert_eq!(nobody.encode(), *bytes);
    assert_eq!(ImageOwner::parse(&[0; 48]), Ok(ImageOwner::NOBODY));
    assert_eq!(ImageOwner::NOBODY.encode(), [0; 48]);
}

// spec-test: QED-HAND-02
#[test]
fn what_breaks_a_rule_is_no_owner() {
    for len in [0, 16, 47, 49, 56] {
        let found = ImageOwner::parse(&vec![1; len]);
        assert_eq!(found, Err(ImageOwnerError::Length { found: len as u64 }));
    }
    for (name, at) in [
        (*b"\0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 1),
        (*b"a\0\0\0\0\0\0\0\0\0\0\0\0\0\0z", 15),
        (*b"a\0\0c\0e\0\0\0\0\0\0\0\0\0\0", 3),
    ] {
        assert_eq!(ImageOwner::parse(&payload(name)), Err(ImageOwnerError::HostName { at }));
    }
}

#[test]
fn a_long_host_name_is_cut_and_a_zero_ends_it() {
    for (given, kept) in [
        (&b"seventeen-letters"[..], &b"seventeen-letter"[..]),
        (b"one\0two", b"one"),
        (b"\0two", b""),
    ] {
        let owner = ImageOwner::new(TOKEN, 0, BOOT, given);
        assert_eq!(owner.host_name(), kept);
        assert_eq!(ImageOwner::parse(&owner.encode()), Ok(owner));
    }
}
