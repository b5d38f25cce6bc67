//! The classes of the server's own errors, in the list that all crates share.

use qed_spec::ErrorKind;
use rustls::pki_types::pem;

use super::tls::TlsError;

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

    #[test]
    fn each_error_has_its_class() {
        let path = PathBuf::new;
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let pem = |source| TlsError::File { path: path(), source };
        let cases = [
            (pem(pem::Error::Io(denied)), ErrorKind::PermissionDenied),
            (pem(pem::Error::NoItemsFound), ErrorKind::InvalidInput),
            (TlsError::Empty { path: path() }, ErrorKind::InvalidInput),
            (TlsError::Certificates(rustls::Error::DecryptError), ErrorKind::InvalidInput),
        ];
        for (error, want) in cases {
            assert_eq!(error.kind(), want, "{error:?}");
        }
    }
}
