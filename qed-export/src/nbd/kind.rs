//! The classes of the server's errors, in the list that all crates share.

use qed_spec::ErrorKind;
use rustls::pki_types::pem;

use super::exports::ExportNameError;
use super::listen::ListenError;
use super::server::ServerError;
use super::tls::TlsError;

impl ListenError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Locked,
            Self::NotASocket { .. } => ErrorKind::AlreadyExists,
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::NoAddress { .. } => ErrorKind::NotFound,
            Self::Io { source, .. } | Self::HandedOver { source, .. } => source.into(),
        }
    }
}

impl ExportNameError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::Twice { .. } => ErrorKind::AlreadyExists,
        }
    }
}

impl ServerError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Poll(source) => source.into(),
            Self::Close { source, .. } => source.kind(),
        }
    }
}

impl TlsError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source: pem::Error::Io(error), .. } => error.into(),
            Self::File { .. } | Self::Empty { .. } | Self::Certificates(_) | Self::Verifier(_) => {
                ErrorKind::InvalidInput
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::device::DeviceError;

    #[test]
    fn each_error_has_its_class() {
        use ErrorKind::{
            AlreadyExists, InvalidInput, Io, Locked, NoSpace, NotFound, PermissionDenied, ReadOnly,
            Unsupported,
        };
        let path = PathBuf::new;
        let (index, address, name) = (0, String::new, String::new);
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let pem = |source| TlsError::File { path: path(), source };
        let closing = ServerError::Close { name: name(), source: DeviceError::ReadOnly };
        let cases = [
            (ListenError::InUse { path: path() }.kind(), Locked),
            (ListenError::NotASocket { path: path() }.kind(), AlreadyExists),
            (ListenError::TooLong { path: path() }.kind(), InvalidInput),
            (ListenError::NoAddress { address: address() }.kind(), NotFound),
            (ListenError::Io { address: address(), source: denied() }.kind(), PermissionDenied),
            (ListenError::HandedOver { index, source: denied() }.kind(), PermissionDenied),
            (ExportNameError::TooLong { len: 9 }.kind(), InvalidInput),
            (ExportNameError::Twice { name: name() }.kind(), AlreadyExists),
            (ServerError::Poll(denied()).kind(), PermissionDenied),
            (closing.kind(), ReadOnly),
            (pem(pem::Error::Io(denied())).kind(), PermissionDenied),
            (pem(pem::Error::NoItemsFound).kind(), InvalidInput),
            (TlsError::Empty { path: path() }.kind(), InvalidInput),
            (TlsError::Certificates(rustls::Error::DecryptError).kind(), InvalidInput),
            (DeviceError::OutOfRange { at: 0, len: 1 }.kind(), InvalidInput),
            (DeviceError::NotFast.kind(), Unsupported),
            (DeviceError::of_io(full()).kind(), NoSpace),
            (DeviceError::of_io(denied()).kind(), Io),
        ];
        for (index, (kind, want)) in cases.into_iter().enumerate() {
            assert_eq!(kind, want, "case {index}");
        }
    }
}
