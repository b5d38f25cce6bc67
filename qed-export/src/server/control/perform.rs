//! Does what is asked over the control socket. Knows neither sockets nor the text of requests.

use std::sync::Arc;

use serde_json::Value;

use super::answer::{checked, done, failure, name, refusal, sized, status};
use super::request::{Command, Request};
use crate::device::DeviceError;
use crate::server::{CompactHandle, Counters, Export, Exports, StopHandle};

/// A service, as far as it is controlled.
#[derive(Debug)]
pub(in crate::server) struct Controlled {
    pub(in crate::server) exports: Exports,
    pub(in crate::server) counters: Vec<Arc<Counters>>,
    pub(in crate::server) compact: CompactHandle,
    pub(in crate::server) stop: StopHandle,
}

impl Controlled {
    /// Does it and says what came of it. [`Controlled::quit`] is left to the caller.
    pub(super) fn perform(&self, request: &Request) -> Value {
        let named = request.export.as_deref();
        match request.command {
            Command::Quit => done(),
            Command::Status if named.is_none() => status(self.exports.iter(), &self.counters),
            command => match self.find(named) {
                Ok(export) => self.perform_on(export, command).unwrap_or_else(|e| failure(&e)),
                Err(text) => refusal(&text),
            },
        }
    }

    /// Ends the service.
    pub(super) fn quit(&self) {
        tracing::info!("asked to end");
        self.stop.stop();
    }

    fn perform_on(&self, export: &Arc<Export>, command: Command) -> Result<Value, DeviceError> {
        let device = export.device();
        Ok(match command {
            Command::Status | Command::Quit => status(std::iter::once(export), &self.counters),
            Command::Activate(take_over) => {
                export.activate(take_over)?;
                sized(export)
            }
            Command::Deactivate => {
                device.deactivate()?;
                done()
            }
            Command::Flush => {
                device.flush()?;
                done()
            }
            Command::Resize { size, shrink } => {
                export.resize(size, shrink)?;
                sized(export)
            }
            Command::Check => checked(device.check()?.as_ref()),
            Command::Compact if device.is_read_only() => return Err(DeviceError::ReadOnly),
            Command::Compact if device.space_usage()?.is_none() => {
                return Err(DeviceError::Unsupported("the disk has nothing that can be moved"));
            }
            Command::Compact => {
                self.compact.compact_one(export);
                done()
            }
        })
    }

    /// The export that is named, or the only one; else the rule that is broken.
    fn find(&self, named: Option<&str>) -> Result<&Arc<Export>, String> {
        let Some(named) = named else {
            let only = self.exports.only();
            return only.ok_or_else(|| "several disks are served: name an 'export'".to_owned());
        };
        let mut found = self.exports.iter().filter(|export| name(export) == named);
        match (found.next(), found.next()) {
            (Some(export), None) => Ok(export),
            (None, _) => Err(format!("there is no export '{named}'")),
            (Some(_), Some(_)) => Err(format!("several exports are '{named}' as text")),
        }
    }
}
