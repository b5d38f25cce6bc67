//! The dialogue with one client over any stream: the handshake step by step, and all of it on one
//! thread.

use std::io::{self, Read, Write};
use std::sync::atomic::AtomicBool;

use super::incoming::RequestReader;
use super::negotiation::{Encryption, Greeted, Options, Step};
use super::option::{OPTION_HEADER_BYTES, OptionHeader};
use super::perform::{Scratch, perform};
use super::request::Request;
use crate::server::Exports;

/// Serves one client that sends `input` and reads `output`, in the clear and one request at a time,
/// until it leaves.
///
/// # Errors
/// Of the streams; [`io::ErrorKind::InvalidData`] for a client that does not speak the protocol and
/// [`io::ErrorKind::UnexpectedEof`] for one that leaves in the middle of a word.
pub fn converse(
    exports: &Exports,
    input: &mut impl Read,
    output: &mut impl Write,
) -> io::Result<()> {
    let options = greet(exports, Encryption::None, input, output)?;
    let Step::Transmit(session) = negotiate(options, input, output)? else { return Ok(()) };
    let (mut reader, mut scratch) = (RequestReader::default(), Scratch::default());
    while let Some(incoming) = reader.next(input, &session, &mut scratch)? {
        if incoming.request == Ok(Request::Disconnect) {
            break;
        }
        // What was refused is in the reply.
        let _refused = perform(&session, &incoming, &mut scratch, &AtomicBool::new(false));
        for part in scratch.reply.parts(scratch.bytes()) {
            output.write_all(&part)?;
        }
    }
    Ok(())
}

/// Says hello and hears the client's flags.
pub(super) fn greet<'e>(
    exports: &'e Exports,
    encryption: Encryption,
    input: &mut impl Read,
    output: &mut impl Write,
) -> io::Result<Options<'e>> {
    let mut hello = Vec::new();
    let greeted = Greeted::new(exports, encryption, &mut hello);
    output.write_all(&hello)?;
    let mut flags = [0; 4];
    input.read_exact(&mut flags)?;
    greeted.client_flags(flags).ok_or_else(|| invalid("the client has flags that are not known"))
}

/// Answers options until one ends this phase. Never reads more than the options, so that what comes
/// behind the last one is read by whom it is for.
pub(super) fn negotiate<'e>(
    mut options: Options<'e>,
    input: &mut impl Read,
    output: &mut impl Write,
) -> io::Result<Step<'e>> {
    let mut answer = Vec::new();
    loop {
        let mut header = [0; OPTION_HEADER_BYTES];
        input.read_exact(&mut header)?;
        let header = OptionHeader::parse(&header)
            .ok_or_else(|| invalid("an option without its magic, or one that is too long"))?;
        let mut data = vec![0; header.len];
        input.read_exact(&mut data)?;
        answer.clear();
        let step = options.option(header, &data, &mut answer);
        output.write_all(&answer)?;
        output.flush()?;
        match step {
            Step::Again(again) => options = again,
            step => return Ok(step),
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
