//! The section OWNER and the bit OWNED of an open image: whose it is while it is open.
//!
//! Knows what is written, not when: with everything else settled, and before and after that nothing.

use qed_spec::{AutoclearFeatures, ImageOwner, SectionType};

use crate::error::ImageError;
use crate::head::Head;

impl Head {
    /// The image names its owner from now on, durably. One without a superblock has the bit alone.
    // spec: QED-HAND-02
    pub(crate) fn take_ownership(&self, owner: &ImageOwner) -> Result<(), ImageError> {
        if self.has_superblock() {
            self.set_section(SectionType::OWNER, &owner.encode())?;
        }
        self.update(|fields| fields.autoclear_features |= AutoclearFeatures::OWNED)?;
        self.sync()
    }

    /// The image is about to be closed by its owner, if it names one; whether anything was written, which
    /// is durable after a flush, before which all else is.
    // spec: QED-HAND-04
    pub(crate) fn give_up_ownership(&self) -> Result<bool, ImageError> {
        if !self.header().fields().autoclear_features.contains(AutoclearFeatures::OWNED) {
            return Ok(false);
        }
        if self.has_superblock() {
            self.set_section(SectionType::OWNER, &ImageOwner::NOBODY.encode())?;
        }
        self.update(|fields| fields.autoclear_features.remove(AutoclearFeatures::OWNED))?;
        Ok(true)
    }
}
