//! Another backing file for an open image, as `rebase -u` does.

use crate::backing::CreateBacking;
use crate::error::SetBackingError;
use crate::image::Image;

impl Image {
    /// Records another backing file and its format, or none; the content of the virtual disk is not
    /// looked at. Durable when it returns.
    ///
    /// The image goes on reading from the backing file it was opened with. A crash leaves either the old
    /// or the new name; a format other than raw is stored after that, and until then the image says of
    /// neither name which format it has.
    ///
    /// # Errors
    /// A bad name, no room beside the old one, or a failed write.
    // spec: QED-BACK-06
    pub fn set_backing(&self, backing: Option<&CreateBacking>) -> Result<(), SetBackingError> {
        let mut metadata = self.durability.lock(&self.head);
        if backing.is_some() {
            self.data.will_be_backed();
            self.end_windows();
        }
        self.durability.commit(&mut metadata, self.cx())?;
        self.durability.drain_log(self.cx())?;
        self.head.set_backing(backing)
    }
}
