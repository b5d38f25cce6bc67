//! What becomes of guest bytes between memory and file: nothing, or, in a test build, a toy cipher that
//! shows that no other place needs to know. A cipher of the format will be one more variant.

use std::borrow::Cow;

/// How the bytes of a cluster are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// As the guest has them.
    Plain,
    /// Each byte with those of its offset in the file. Protects nothing.
    #[cfg(feature = "test-utils")]
    Toy,
}

impl Transform {
    /// That of an image that opens now.
    pub(crate) fn of_new_image() -> Self {
        #[cfg(feature = "test-utils")]
        if crate::testing::has_toy_cipher() {
            return Self::Toy;
        }
        Self::Plain
    }

    pub(crate) fn is_plain(self) -> bool {
        self == Self::Plain
    }

    /// The bytes to store at `host` for those of the guest.
    pub(crate) fn encode(self, bytes: &[u8], host: u64) -> Cow<'_, [u8]> {
        let mut stored = Cow::Borrowed(bytes);
        if !self.is_plain() {
            self.apply(stored.to_mut(), host);
        }
        stored
    }

    /// Turns bytes that are stored at `host` into those of the guest.
    pub(crate) fn decode(self, bytes: &mut [u8], host: u64) {
        self.apply(bytes, host);
    }

    /// Both ways alike.
    fn apply(self, bytes: &mut [u8], host: u64) {
        if self.is_plain() {
            return;
        }
        for (byte, at) in bytes.iter_mut().zip(host..) {
            // Never 0: a byte that goes round the cipher shows.
            *byte ^= at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] | 1;
        }
    }
}
