//! Who opens an image on this host, and where its pending log is: what qed-core asks its caller for.

use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use qed_core::{Keeps, Ownership, PendingLost};
use qed_io::{FileStorage, effective_user};
use qed_pending::{LogPlace, PendingLog, PlaceError, boot_id};

/// Names the folder of pending logs, before any other is tried.
const FOLDER_VARIABLE: &str = "QED_RUNTIME_DIR";

/// The owner of an image in a file, on this host and from now on; another one each time.
#[derive(Debug)]
pub struct Owner {
    boot_id: [u8; 16],
    host_name: Vec<u8>,
    since: u64,
    token: NonZeroU64,
    salt: [u64; 2],
    keeps: Keeps,
    log: Option<LogPlace>,
    /// Why there is no place for a log.
    refused: Option<PlaceError>,
}

impl Owner {
    /// Who opens the image in `file`. A log is looked for in the folder that `QED_RUNTIME_DIR` names, else in
    /// `/run/qed`, `$XDG_RUNTIME_DIR/qed` and `/dev/shm/qed-UID`; a new one is kept in the first of them
    /// that lies in memory and is this user's alone, where the image is to keep one.
    ///
    /// Where the system does not tell its boot, as without `/proc`, no log is looked for or kept.
    ///
    /// # Errors
    /// A system without random bytes.
    pub fn of(file: &FileStorage, keeps: Keeps) -> io::Result<Self> {
        let mut random = [[0; 8]; 3];
        for bytes in &mut random {
            getrandom::fill(bytes).map_err(io::Error::other)?;
        }
        let [token, salt @ ..] = random.map(u64::from_le_bytes);
        let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut owner = Self {
            boot_id: [0; 16],
            host_name: name.trim_ascii().to_vec(),
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            token: NonZeroU64::new(token).unwrap_or(NonZeroU64::MAX),
            salt,
            keeps,
            log: None,
            refused: None,
        };
        match boot_id() {
            Ok(boot_id) => owner.boot_id = boot_id,
            // A log would be believed by nobody.
            Err(error) => {
                owner.refused = (keeps == Keeps::Owner).then(|| PlaceError::no_boot(error));
                return Ok(owner);
            }
        }
        owner.find_place(file);
        Ok(owner)
    }

    /// As qed-core wants it; `lost` says what becomes of an image whose log is lost.
    #[must_use]
    pub fn ownership(&self, lost: PendingLost) -> Ownership<'_> {
        Ownership {
            boot_id: self.boot_id,
            host_name: &self.host_name,
            since: self.since,
            token: self.token,
            salt: self.salt,
            log: self.log.as_ref(),
            keeps: self.keeps,
            lost,
            shared: false,
            take_over: false,
        }
    }

    /// Why an image that is to keep a log has none; what was acknowledged ends with the process then.
    #[must_use]
    pub fn without_log(&self) -> Option<&PlaceError> {
        self.refused.as_ref()
    }

    /// How many changes a log has that is there: those of a process that died, or of the one that has the
    /// image open.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let log = self.log.as_ref().and_then(|place| place.find().ok().flatten());
        let is_of_now = |log: &PendingLog| log.binding().boot_id == self.boot_id;
        log.filter(is_of_now).map_or(0, |log| log.go_on().len() as u64)
    }

    /// Where the log is, for people.
    #[must_use]
    pub fn log_name(&self) -> Option<String> {
        self.log.as_ref().map(|place| place.to_string())
    }

    /// Where a log is, else where one can be.
    fn find_place(&mut self, file: &FileStorage) {
        let folders = folders();
        let there = folders.iter().filter_map(|folder| LogPlace::in_folder(folder, file).ok());
        let has_log = |place: &LogPlace| matches!(place.find(), Ok(Some(_)));
        self.log = there.into_iter().find(has_log);
        if self.log.is_some() || self.keeps == Keeps::Nothing {
            return;
        }
        for folder in folders {
            match LogPlace::make_in(&folder, file) {
                Ok(place) => {
                    (self.log, self.refused) = (Some(place), None);
                    return;
                }
                Err(error) => self.refused = Some(error),
            }
        }
    }
}

fn folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return vec![folder.into()];
    }
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    let session = session.map(|folder| PathBuf::from(folder).join("qed"));
    let shared = PathBuf::from(format!("/dev/shm/qed-{}", effective_user()));
    [Some(PathBuf::from("/run/qed")), session, Some(shared)].into_iter().flatten().collect()
}
