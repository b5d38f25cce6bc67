//! Sockets by their addresses, and which of them other machines may connect to.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::bail;
use qed_export::server::{Address, Listener};

/// A socket at an address, which is a path if it has a slash.
pub(super) fn listen_at(address: &OsStr, may_be_remote: bool) -> anyhow::Result<Listener> {
    let listener = match address.to_str() {
        Some(tcp) if !tcp.contains('/') => Listener::tcp(tcp)?,
        _ => Listener::unix(Path::new(address))?,
    };
    check_reach(&listener, may_be_remote)?;
    Ok(listener)
}

/// Refuses a socket that other machines can connect to, unless they may.
pub(crate) fn check_reach(listener: &Listener, may_be_remote: bool) -> anyhow::Result<()> {
    match listener.address() {
        Address::Tcp(address) if !may_be_remote && !address.ip().is_loopback() => {
            bail!("Other machines can connect to {address}: use TLS, or --unencrypted if they may")
        }
        _ => Ok(()),
    }
}
