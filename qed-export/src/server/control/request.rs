//! What is asked over the control socket: a line of JSON as a value. Parses, does nothing.

use serde::Deserialize;
use thiserror::Error;

use crate::device::{Shrink, TakeOver};

/// Bytes of a request: room for the longest name of an export, and for every escape in it.
pub(super) const MAX_LINE_BYTES: usize = 64 << 10;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    /// The export that it is about; none if the request does not say.
    pub(super) export: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    Activate(TakeOver),
    Deactivate,
    Flush,
    Resize { size: u64, shrink: Shrink },
    Check,
    Compact,
    Quit,
}

/// Why a line is no request.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error("a request is an object of JSON on one line: {0}")]
    Json(#[from] serde_json::Error),
    #[error("there is no command '{0}'")]
    Unknown(String),
    #[error("'{command}' takes no '{field}'")]
    Field { command: String, field: &'static str },
    #[error("'resize' needs a 'size' in bytes")]
    NoSize,
}

/// An object with the fields that any command has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    cmd: String,
    export: Option<String>,
    take_over: Option<bool>,
    size: Option<u64>,
    shrink: Option<bool>,
}

impl Request {
    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let fields: Fields = serde_json::from_slice(line)?;
        let command = match fields.cmd.as_str() {
            "status" => Command::Status,
            "activate" => Command::Activate(match fields.take_over {
                Some(true) => TakeOver::Yes,
                Some(false) | None => TakeOver::No,
            }),
            "deactivate" => Command::Deactivate,
            "flush" => Command::Flush,
            "resize" => Command::Resize {
                size: fields.size.ok_or(RequestError::NoSize)?,
                shrink: match fields.shrink {
                    Some(true) => Shrink::Allow,
                    Some(false) | None => Shrink::Refuse,
                },
            },
            "check" => Command::Check,
            "compact" => Command::Compact,
            "quit" => Command::Quit,
            _ => return Err(RequestError::Unknown(fields.cmd)),
        };
        let is_resize = matches!(command, Command::Resize { .. });
        let has = [
            ("export", fields.export.is_some(), command != Command::Quit),
            ("take_over", fields.take_over.is_some(), matches!(command, Command::Activate(_))),
            ("size", fields.size.is_some(), is_resize),
            ("shrink", fields.shrink.is_some(), is_resize),
        ];
        match has.into_iter().find(|(_, is_there, may)| *is_there && !may) {
            Some((field, ..)) => Err(RequestError::Field { command: fields.cmd, field }),
            None => Ok(Self { command, export: fields.export }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_fields() {
        let (size, refuse, allow) = (1 << 40, Shrink::Refuse, Shrink::Allow);
        let table = [
            (r#"{"cmd":"status"}"#, Command::Status),
            (r#" { "cmd" : "activate" } "#, Command::Activate(TakeOver::No)),
            (r#"{"cmd":"activate","take_over":true}"#, Command::Activate(TakeOver::Yes)),
            (r#"{"take_over":false,"cmd":"activate"}"#, Command::Activate(TakeOver::No)),
            (r#"{"cmd":"deactivate"}"#, Command::Deactivate),
            (r#"{"cmd":"flush"}"#, Command::Flush),
            (r#"{"cmd":"resize","size":1099511627776}"#, Command::Resize { size, shrink: refuse }),
            (
                r#"{"cmd":"resize","size":1099511627776,"shrink":true}"#,
                Command::Resize { size, shrink: allow },
            ),
            (r#"{"cmd":"check"}"#, Command::Check),
            (r#"{"cmd":"compact"}"#, Command::Compact),
            (r#"{"cmd":"quit"}"#, Command::Quit),
        ];
        for (line, command) in table {
            let request = Request::parse(line.as_bytes()).expect(line);
            assert_eq!(request, Request { command, export: None }, "{line}");
        }
        let named = Request::parse(br#"{"cmd":"flush","export":"a\"b"}"#).expect("a name");
        assert_eq!(named.export.as_deref(), Some("a\"b"));
    }

    #[test]
    fn what_is_no_request_is_told_by_the_rule_that_it_breaks() {
        let deep = "[".repeat(MAX_LINE_BYTES);
        let table = [
            ("", "a request is an object of JSON on one line: EOF"),
            ("status", "a request is an object of JSON"),
            (deep.as_str(), "a request is an object of JSON"),
            ("[]", "a request is an object of JSON"),
            ("{}", "missing field `cmd`"),
            (r#"{"cmd":1}"#, "invalid type: integer `1`, expected a string"),
            (r#"{"cmd":"flush"}{"#, "trailing characters"),
            (r#"{"cmd":"flush","cmd":"quit"}"#, "duplicate field `cmd`"),
            (r#"{"cmd":"flush","now":true}"#, "unknown field `now`"),
            (r#"{"cmd":"status\u0000"}"#, "there is no command 'status\0'"),
            (r#"{"cmd":"STATUS"}"#, "there is no command 'STATUS'"),
            (r#"{"cmd":"status","size":1}"#, "'status' takes no 'size'"),
            (r#"{"cmd":"deactivate","take_over":true}"#, "'deactivate' takes no 'take_over'"),
            (r#"{"cmd":"activate","shrink":true}"#, "'activate' takes no 'shrink'"),
            (r#"{"cmd":"quit","export":""}"#, "'quit' takes no 'export'"),
            (r#"{"cmd":"resize"}"#, "'resize' needs a 'size' in bytes"),
            (r#"{"cmd":"resize","size":-1}"#, "invalid value: integer `-1`, expected u64"),
            (r#"{"cmd":"resize","size":1.5}"#, "floating point `1.5`, expected u64"),
            (r#"{"cmd":"resize","size":18446744073709551616}"#, "expected u64"),
            (r#"{"cmd":"resize","size":"1G"}"#, "invalid type: string"),
        ];
        for (line, rule) in table {
            let error = Request::parse(line.as_bytes()).expect_err(line).to_string();
            assert!(error.contains(rule), "{line}: {error}");
        }
        let error = Request::parse(b"{\"cmd\":\"\xff\"}").expect_err("not text").to_string();
        assert!(error.contains("a request is an object of JSON"), "{error}");
    }
}
