//! How the command line names an image: by a path, by `--image-opts`, or by `json:{..}`.
//!
//! All become one value, from which `open` opens the image. Names that images hold are paths and
//! nothing else: see [`ImageName::plain`].

mod options;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::args::{Format, Refused, one_name, parse_driver};
use crate::names::path_of;
use crate::open::could_not_open;
use options::ImageOptions;

/// How the images of a command line are named.
#[derive(Debug, Default, Args)]
pub(crate) struct NameArgs {
    /// Images are named by options, as in driver=qed,file.filename=disk.qed
    #[arg(long, display_order = 900)]
    image_opts: bool,
    #[command(flatten)]
    pub(crate) refused: Refused,
}

impl NameArgs {
    /// The image that is named `given`; `format` is that of `-f`.
    pub(crate) fn image(&self, given: &OsStr, format: Option<&OsStr>) -> anyhow::Result<ImageName> {
        ImageName::of(given, format, self.image_opts)
    }
}

/// The one image that a command is about.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Format of the image; without it QED and QCOW2 are recognised by their first bytes
    #[arg(short, long, value_name = "FMT")]
    pub(crate) format: Option<OsString>,
    /// The image
    #[arg(value_name = "FILENAME")]
    pub(crate) operands: Vec<OsString>,
    #[command(flatten)]
    pub(crate) named: NameArgs,
}

impl ImageArgs {
    /// Its name as it was given.
    pub(crate) fn given(&self) -> anyhow::Result<&OsStr> {
        one_name(&self.operands)
    }

    /// Which image that is.
    pub(crate) fn named(&self) -> anyhow::Result<ImageName> {
        self.named.image(self.given()?, self.format.as_deref())
    }
}

/// An image file as the command line names it.
#[derive(Debug, Clone)]
pub(crate) struct ImageName {
    /// The name as it was given, for messages.
    given: OsString,
    path: PathBuf,
    format: Option<Format>,
    is_read_only: bool,
}

impl ImageName {
    /// The image that the command line names `given`: with `image_opts` a list of options, else a
    /// path or `json:{..}`. `format` is that of `-f`.
    pub(crate) fn of(
        given: &OsStr,
        format: Option<&OsStr>,
        image_opts: bool,
    ) -> anyhow::Result<Self> {
        if image_opts && format.is_some() {
            bail!("--image-opts and --format are mutually exclusive");
        }
        let options = if image_opts {
            Some(ImageOptions::from_list(given))
        } else {
            given.as_bytes().strip_prefix(b"json:").map(ImageOptions::from_json)
        };
        let parse = || {
            let Some(options) = options else { return Self::plain(given, format) };
            let named = options?.image()?;
            let format = format.map(parse_driver).transpose()?.or(named.format);
            Ok(Self { given: given.to_owned(), format, ..named })
        };
        parse().with_context(|| could_not_open(given))
    }

    /// The image with the path `given`, perhaps after `file:`.
    pub(crate) fn plain(given: &OsStr, format: Option<&OsStr>) -> anyhow::Result<Self> {
        let format = format.map(parse_driver).transpose()?;
        let path = path_of(given)?;
        Ok(Self { given: given.to_owned(), path, format, is_read_only: false })
    }

    /// The name as it was given.
    pub(crate) fn given(&self) -> &OsStr {
        &self.given
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The format, if it is stated.
    pub(crate) fn format(&self) -> Option<Format> {
        self.format
    }

    /// Whether the options say that the image is only read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a name: the path and the format, or the error.
    fn read(given: &str, format: Option<&str>, image_opts: bool) -> String {
        match ImageName::of(given.as_ref(), format.map(OsStr::new), image_opts) {
            Ok(name) => {
                let format = name.format().map_or("?", Format::name);
                let write = if name.is_read_only() { " read-only" } else { "" };
                format!("{} {format}{write}", name.path().display())
            }
            Err(error) => format!("{:#}", error.root_cause()),
        }
    }

    #[test]
    fn three_ways_to_name_an_image_become_one() {
        let cases = [
            ("a.qed", None, false, "a.qed ?"),
            ("file:a:b", Some("qed"), false, "./a:b qed"),
            ("nbd:x", None, false, "Unknown protocol 'nbd'"),
            ("driver=qed,file.driver=file,file.filename=a.qed", None, true, "a.qed qed"),
            ("file.filename=a", None, true, "a ?"),
            ("driver=raw,file.filename=a:b,,c", None, true, "a:b,c raw"),
            ("driver=file,filename=a", None, true, "a raw"),
            ("driver=qed,file.filename=a,read-only=on", None, true, "a qed read-only"),
            (
                "driver=qed,file.filename=a",
                Some("qed"),
                true,
                "--image-opts and --format are mutually exclusive",
            ),
            (
                r#"json:{"driver":"qed","file":{"driver":"file","filename":"a"}}"#,
                None,
                false,
                "a qed",
            ),
            (r#"json:{"driver":"qcow2","file.filename":"a"}"#, None, false, "a qcow2"),
            (
                r#"json:{"file":{"filename":"a"},"read-only":true}"#,
                Some("raw"),
                false,
                "a raw read-only",
            ),
        ];
        for (given, format, image_opts, expected) in cases {
            assert_eq!(read(given, format, image_opts), expected, "{given}");
        }
    }

    #[test]
    fn an_option_that_is_not_known_is_named() {
        let cases = [
            ("driver=nope,file.filename=a", "Unknown driver 'nope'"),
            ("driver=qed,file.driver=nbd,file.filename=a", "Unknown driver 'nbd'"),
            (
                "driver=qed,file.filename=a,foo=1",
                "Block format 'qed' does not support the option 'foo'",
            ),
            (
                "driver=qed,file.filename=a,file.foo=1",
                "Block protocol 'file' doesn't support the option 'foo'",
            ),
            (
                "driver=qed,file.filename=a,backing.driver=raw",
                "the image option 'backing.driver' is not supported yet",
            ),
            (
                "driver=qcow2,file.filename=a,encrypt.key-secret=s",
                "the image option 'encrypt.key-secret' is not supported yet",
            ),
            ("driver=qed,file=node", "Cannot find device='node' nor node-name='node'"),
            ("a.qed", "Cannot find device='a.qed' nor node-name='a.qed'"),
            ("driver=qed", "A block device must be specified for \"file\""),
            ("filename=a", "Must specify either driver or file"),
            ("", "Must specify either driver or file"),
            ("driver=qed,file.filename=", "The 'file' block driver requires a file name"),
            ("driver=qed,file.driver=file", "The 'file' block driver requires a file name"),
            (
                "driver=qed,file.filename=a,read-only=x",
                "Parameter 'read-only' expects 'on' or 'off'",
            ),
            ("driver=qed,,file.filename=a", "Unknown driver 'qed,file.filename=a'"),
        ];
        for (given, expected) in cases {
            assert_eq!(read(given, None, true), expected, "{given}");
        }
        assert_eq!(read("json:[]", None, false), "Invalid JSON object given");
        assert_eq!(
            read(r#"json:{"driver":"qed","file.filename":"a","backing":null}"#, None, false),
            "the image option 'backing' is not supported yet"
        );
    }
}
