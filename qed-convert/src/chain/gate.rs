//! The gate that hands out what a chain has opened already. It opens nothing.

use std::sync::Arc;

use qed_core::{BackingGate, BackingRequest, GateError, VirtualDisk};
use qed_spec::BackingName;

use super::error::BackingNameChanged;

/// The backing file of one image, open; for opening that image itself, perhaps for writing.
#[derive(Debug, Clone)]
pub struct OpenedBacking {
    /// As the image had it when the chain was walked.
    name: Option<Vec<u8>>,
    below: Option<Arc<dyn VirtualDisk>>,
}

impl OpenedBacking {
    pub(super) fn new(name: Option<BackingName<'_>>, below: Option<Arc<dyn VirtualDisk>>) -> Self {
        Self { name: name.map(|name| name.as_bytes().to_vec()), below }
    }

    /// What the gate hands out; none if the image has no backing file.
    #[must_use]
    pub fn backing(&self) -> Option<&Arc<dyn VirtualDisk>> {
        self.below.as_ref()
    }
}

impl BackingGate for OpenedBacking {
    fn open_backing(
        &self,
        request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        if self.name.as_deref() != Some(request.name.as_bytes()) {
            return Err(GateError::Other(Box::new(BackingNameChanged)));
        }
        Ok(self.below.clone())
    }
}
