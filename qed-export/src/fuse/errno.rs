//! Errors of a disk as the numbers that a program sees.

use fuser::Errno;

use super::gate::Shut;
use crate::device::DeviceError;

/// Why a call of the file failed.
#[derive(Debug)]
pub(super) enum FileError {
    /// The call itself is wrong, or nothing that this file does.
    Call(Errno),
    /// The disk refused it or failed.
    Disk(DeviceError),
}

impl FileError {
    /// The number that the caller sees.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Call(errno) => *errno,
            Self::Disk(error) => match error {
                DeviceError::ReadOnly => Errno::EROFS,
                DeviceError::OutOfRange { .. } => Errno::EINVAL,
                DeviceError::NoSpace(_) => Errno::ENOSPC,
                DeviceError::NotFast | DeviceError::Unsupported(_) => Errno::EOPNOTSUPP,
                DeviceError::Refused(_) => Errno::EPERM,
                DeviceError::Inactive => Errno::ESHUTDOWN,
                DeviceError::Failed(_) => Errno::EIO,
            },
        }
    }
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        Self::Call(errno)
    }
}

impl From<DeviceError> for FileError {
    fn from(error: DeviceError) -> Self {
        Self::Disk(error)
    }
}

impl From<Shut> for FileError {
    fn from(Shut: Shut) -> Self {
        Self::Call(Errno::ESHUTDOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_disk_has_its_number() {
        let table = [
            (DeviceError::ReadOnly, Errno::EROFS),
            (DeviceError::OutOfRange { at: 1, len: 2 }, Errno::EINVAL),
            (DeviceError::NoSpace("x".into()), Errno::ENOSPC),
            (DeviceError::NotFast, Errno::EOPNOTSUPP),
            (DeviceError::Unsupported("x"), Errno::EOPNOTSUPP),
            (DeviceError::Refused("x".into()), Errno::EPERM),
            (DeviceError::Inactive, Errno::ESHUTDOWN),
            (DeviceError::Failed("x".into()), Errno::EIO),
        ];
        for (error, errno) in table {
            let text = error.to_string();
            assert_eq!(FileError::from(error).errno().code(), errno.code(), "{text}");
        }
    }
}
