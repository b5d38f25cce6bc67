//! The options that name an image, whichever way they were written: dotted keys with values.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use serde_json::Value;

use super::ImageName;
use crate::args::{Format, OptionList, parse_driver};
use crate::failure::{shown, unsupported};

/// Options of an image by their dotted names.
pub(super) struct ImageOptions(BTreeMap<Vec<u8>, Vec<u8>>);

impl ImageOptions {
    /// The options of a list as `--image-opts` has it.
    pub(super) fn from_list(list: &OsStr) -> anyhow::Result<Self> {
        if list.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        let mut options = BTreeMap::new();
        for (name, value) in OptionList::parse(&[list.to_owned()])?.entries() {
            // A word alone is the name of a node, of which there are none.
            let value = value.ok_or_else(|| no_node(&name))?;
            options.insert(name, value);
        }
        Ok(Self(options))
    }

    /// The options of the JSON object after `json:`.
    pub(super) fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        let json = serde_json::from_slice(json).map_err(|error| {
            anyhow!("Could not parse the JSON options: JSON parse error, {error}")
        })?;
        let Value::Object(_) = json else { bail!("Invalid JSON object given") };
        let mut options = BTreeMap::new();
        flatten("", json, &mut options);
        Ok(Self(options))
    }

    /// The image that they name. Every option counts, or is refused by its name.
    pub(super) fn image(mut self) -> anyhow::Result<ImageName> {
        let is_read_only = match self.take("read-only").as_deref() {
            None | Some(b"off") => false,
            Some(b"on") => true,
            Some(_) => bail!("Parameter 'read-only' expects 'on' or 'off'"),
        };
        let (format, path) = match self.take("driver") {
            // The file as it is.
            Some(driver) if is_protocol(&driver) => (Some(Format::Raw), self.file(&driver, "")?),
            None if !self.names_file() => bail!("Must specify either driver or file"),
            driver => {
                let format = driver.map(|driver| parse_driver(OsStr::from_bytes(&driver)));
                (format.transpose()?, self.file_below()?)
            }
        };
        self.refuse_rest(format)?;
        Ok(ImageName { given: OsString::new(), path, format, is_read_only })
    }

    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.0.remove(name.as_bytes())
    }

    fn names_file(&self) -> bool {
        self.0.keys().any(|name| name == b"file" || name.starts_with(b"file."))
    }

    /// The file that an image of some format lies in.
    fn file_below(&mut self) -> anyhow::Result<PathBuf> {
        if let Some(node) = self.take("file") {
            return Err(no_node(&node));
        }
        if !self.names_file() {
            bail!("A block device must be specified for \"file\"");
        }
        let driver = self.take("file.driver").unwrap_or_else(|| b"file".to_vec());
        if !is_protocol(&driver) {
            bail!("Unknown driver '{}'", shown(OsStr::from_bytes(&driver)));
        }
        self.file(&driver, "file.")
    }

    /// The file that the options of a protocol name.
    fn file(&mut self, driver: &[u8], prefix: &str) -> anyhow::Result<PathBuf> {
        let driver = String::from_utf8_lossy(driver);
        let path = match self.take(&format!("{prefix}filename")) {
            Some(path) if !path.is_empty() => PathBuf::from(OsString::from_vec(path)),
            _ => bail!("The '{driver}' block driver requires a file name"),
        };
        if driver == "host_device" && is_no_device(&path) {
            let path = shown(&path);
            bail!("'host_device' driver requires '{path}' to be a block device");
        }
        Ok(path)
    }

    fn refuse_rest(self, format: Option<Format>) -> anyhow::Result<()> {
        let Some(name) = self.0.keys().next() else { return Ok(()) };
        let shown = shown(OsStr::from_bytes(name));
        if name.starts_with(b"backing") || name.starts_with(b"encrypt") {
            return Err(unsupported(format_args!("the image option '{shown}'")));
        }
        if let Some(option) = shown.strip_prefix("file.") {
            bail!("Block protocol 'file' doesn't support the option '{option}'");
        }
        let format = format.map_or("raw", Format::name);
        bail!("Block format '{format}' does not support the option '{shown}'");
    }
}

fn is_protocol(driver: &[u8]) -> bool {
    driver == b"file" || driver == b"host_device"
}

/// Whether something else than a block device has this path; a path that leads nowhere is found
/// when it is opened.
fn is_no_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_block_device())
}

fn no_node(name: &[u8]) -> anyhow::Error {
    let name = shown(OsStr::from_bytes(name));
    anyhow!("Cannot find device='{name}' nor node-name='{name}'")
}

/// Adds a value under its dotted name; what no option takes stays as JSON, to be refused.
fn flatten(name: &str, value: Value, options: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let value = match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = if name.is_empty() { key } else { format!("{name}.{key}") };
                flatten(&key, value, options);
            }
            return;
        }
        Value::String(text) => text,
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        other => other.to_string(),
    };
    options.insert(name.as_bytes().to_vec(), value.into_bytes());
}
