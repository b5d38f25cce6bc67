//! Where `serve` listens, and the addresses as URIs.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use qed_export::server::{Address, Listener};

use crate::failure::{shown, usage};
use crate::service::check_reach;

/// The sockets that were asked for, else those that the program was started with.
pub(super) fn listen(
    socket: Option<&Path>,
    tcp: Option<&str>,
    may_be_remote: bool,
) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    if let Some(path) = socket {
        listeners.push(Listener::unix(path)?);
    }
    if let Some(address) = tcp {
        listeners.push(Listener::tcp(address)?);
    }
    if listeners.is_empty() {
        listeners = Listener::handed_over()?;
    }
    if listeners.is_empty() {
        return Err(usage("Expecting --socket, --listen or a socket from systemd"));
    }
    for listener in &listeners {
        check_reach(listener, may_be_remote)?;
    }
    Ok(listeners)
}

/// A line for each way to reach each export.
pub(super) fn uris(listeners: &[Listener], names: &[Vec<u8>], tls: bool) -> String {
    let scheme = if tls { "nbds" } else { "nbd" };
    let mut text = String::new();
    for listener in listeners {
        for name in names {
            let name = encoded(name);
            text += &match listener.address() {
                Address::Unix(Some(path)) => {
                    let path = encoded(path.as_os_str().as_bytes());
                    format!("{scheme}+unix:///{name}?socket={path}\n")
                }
                Address::Tcp(address) => format!("{scheme}://{address}/{name}\n"),
                other => format!("{scheme}: {name} on {}\n", shown(format!("{other:?}"))),
            };
        }
    }
    text
}

/// As URIs have it: what means something in them as `%NN`.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_every_export_of_every_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.sock");
        let unix = Listener::unix(&path).unwrap();
        let tcp = Listener::tcp("127.0.0.1:0").unwrap();
        let port = match tcp.address() {
            Address::Tcp(address) => address.port(),
            other => panic!("{other:?}"),
        };
        let names = [b"".to_vec(), b"x?\xff".to_vec()];
        let folder = folder.path().display();
        assert_eq!(
            uris(&[unix, tcp], &names, true),
            format!(
                "nbds+unix:///?socket={folder}/a%20b.sock\n\
                 nbds+unix:///x%3F%FF?socket={folder}/a%20b.sock\n\
                 nbds://127.0.0.1:{port}/\nnbds://127.0.0.1:{port}/x%3F%FF\n"
            )
        );
    }

    #[test]
    fn plaintext_stays_on_the_machine() {
        let listen = |address, may| listen(None, Some(address), may);
        assert!(listen("127.0.0.1:0", false).is_ok() && listen("[::]:0", true).is_ok());
        let error = listen("0.0.0.0:0", false).unwrap_err().to_string();
        assert!(error.contains("--unencrypted"), "{error}");
    }
}
