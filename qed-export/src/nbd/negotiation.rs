//! The handshake as a machine: bytes of the client go in, bytes for it come out, and in the end there
//! is a [`Session`]. Reads no socket.
//!
//! Each state is a type, and a step consumes it: [`Greeted`] becomes [`Options`], which stays what it
//! is, or asks for TLS, or ends in a session. What a state does not allow has no method.

use super::option::{Malformed, OptionHeader, Request};
use super::reply::{Contexts, MetaContext, Replies};
use super::request::{Framing, MAX_PAYLOAD_BYTES};
use super::wire::{
    GREETING_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, handshake, info, option, option_reply,
    transmission,
};
use crate::server::{Export, Exports};

/// Zeros behind the answer to the oldest way of asking for an export.
const PADDING_BYTES: usize = 124;

/// Which clients may talk to the server in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Everybody; there is no TLS.
    None,
    /// Nobody: TLS comes before anything else.
    Required,
    /// TLS is on.
    Established,
}

/// The server has said hello; the client's flags come next.
#[derive(Debug)]
pub(super) struct Greeted<'e>(Options<'e>);

/// The client may send options.
#[derive(Debug)]
pub(super) struct Options<'e> {
    exports: &'e Exports,
    encryption: Encryption,
    no_zeroes: bool,
    replies: Replies,
    /// Selected for the export of this name.
    selected: Option<(Vec<u8>, Contexts)>,
}

/// The handshake is over: the export, and how requests and replies look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session<'e> {
    pub(super) export: &'e Export,
    pub(super) replies: Replies,
    pub(super) contexts: Contexts,
}

/// What follows from an option; its answer is to be sent first.
#[derive(Debug)]
pub(super) enum Step<'e> {
    /// More options.
    Again(Options<'e>),
    /// TLS, then more options.
    StartTls(Plain<'e>),
    /// The transmission.
    Transmit(Session<'e>),
    /// The end, as asked for or as the only answer that the protocol has.
    HangUp,
}

/// The client wants TLS; nothing that was agreed on in the clear counts.
#[derive(Debug)]
pub(super) struct Plain<'e>(Options<'e>);

impl<'e> Greeted<'e> {
    /// Says hello.
    pub(super) fn new(exports: &'e Exports, encryption: Encryption, out: &mut Vec<u8>) -> Self {
        out.extend(GREETING_MAGIC.to_be_bytes());
        out.extend(OPTION_MAGIC.to_be_bytes());
        out.extend((handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).to_be_bytes());
        Self(Options::new(exports, encryption, false))
    }

    /// Takes the client's flags; none if it wants what the server does not know.
    pub(super) fn client_flags(self, flags: [u8; 4]) -> Option<Options<'e>> {
        let flags = u32::from_be_bytes(flags);
        let fixed = u32::from(handshake::FIXED_NEWSTYLE);
        let no_zeroes = u32::from(handshake::NO_ZEROES);
        let known = fixed | no_zeroes;
        let Self(mut options) = self;
        options.no_zeroes = flags & no_zeroes != 0;
        (flags & !known == 0 && flags & fixed != 0).then_some(options)
    }
}

impl<'e> Plain<'e> {
    /// TLS is on.
    pub(super) fn established(self) -> Options<'e> {
        let Self(options) = self;
        Options::new(options.exports, Encryption::Established, options.no_zeroes)
    }
}

impl<'e> Options<'e> {
    fn new(exports: &'e Exports, encryption: Encryption, no_zeroes: bool) -> Self {
        Self { exports, encryption, no_zeroes, replies: Replies::Simple, selected: None }
    }

    /// Takes one option and puts the answer behind `out`.
    pub(super) fn option(self, header: OptionHeader, data: &[u8], out: &mut Vec<u8>) -> Step<'e> {
        let request = Request::parse(header.number, data);
        let mut answer = Answer { number: header.number, out };
        if header.number == option::EXPORT_NAME && request.is_err() {
            return Step::HangUp;
        }
        let may_be_plain = matches!(request, Ok(Request::Abort | Request::StartTls));
        if self.encryption == Encryption::Required && !may_be_plain {
            if matches!(request, Ok(Request::ExportName(_))) {
                return Step::HangUp;
            }
            return self.refuse(answer, option_reply::TLS_REQUIRED, "TLS comes first");
        }
        match request {
            Ok(request) => self.served(request, &mut answer),
            Err(Malformed::Unsupported) => {
                self.refuse(answer, option_reply::UNSUPPORTED, "unknown option")
            }
            Err(Malformed::Invalid) => {
                self.refuse(answer, option_reply::INVALID, "malformed option")
            }
            Err(Malformed::TooBig) => {
                self.refuse(answer, option_reply::TOO_BIG, "a string is too long, or too many are")
            }
        }
    }

    fn served(self, request: Request<'_>, answer: &mut Answer<'_>) -> Step<'e> {
        match request {
            Request::ExportName(name) => self.export_name(name, answer.out),
            Request::Abort => {
                answer.ack();
                Step::HangUp
            }
            Request::List => {
                for export in self.exports.iter() {
                    let name = export.name();
                    answer.reply(option_reply::SERVER, &[&len_of(name), name]);
                }
                self.agree(answer)
            }
            Request::StartTls => self.start_tls(answer),
            Request::Info { name, wanted, go } => {
                let Some(export) = self.exports.find(name) else {
                    return self.refuse_to(answer, option_reply::UNKNOWN, "no such export");
                };
                self.tell(export, wanted.name, wanted.description, answer);
                if !go {
                    return self.agree(answer);
                }
                answer.ack();
                Step::Transmit(self.session(export, name))
            }
            Request::StructuredReply => self.upgrade(Replies::Structured, answer),
            Request::ExtendedHeaders => self.upgrade(Replies::Extended, answer),
            Request::MetaContext { name, queries, set } => {
                self.meta_context(name, &queries, set, answer)
            }
        }
    }

    /// The oldest way to ask for an export, which has no way to say no.
    fn export_name(self, name: &[u8], out: &mut Vec<u8>) -> Step<'e> {
        let Some(export) = self.exports.find(name) else { return Step::HangUp };
        out.extend(export.device().size().to_be_bytes());
        out.extend(transmission_flags(export, self.replies).to_be_bytes());
        if !self.no_zeroes {
            out.resize(out.len() + PADDING_BYTES, 0);
        }
        Step::Transmit(self.session(export, name))
    }

    fn start_tls(self, answer: &mut Answer<'_>) -> Step<'e> {
        match self.encryption {
            Encryption::None => {
                self.refuse_to(answer, option_reply::POLICY, "this server has no TLS")
            }
            Encryption::Established => {
                self.refuse_to(answer, option_reply::INVALID, "TLS is on already")
            }
            Encryption::Required => {
                answer.ack();
                Step::StartTls(Plain(self))
            }
        }
    }

    fn tell(&self, export: &Export, name: bool, description: bool, answer: &mut Answer<'_>) {
        let kind = |kind: u16| kind.to_be_bytes();
        let size = export.device().size().to_be_bytes();
        let flags = transmission_flags(export, self.replies).to_be_bytes();
        answer.reply(option_reply::INFO, &[&kind(info::EXPORT), &size, &flags]);
        if name {
            answer.reply(option_reply::INFO, &[&kind(info::NAME), export.name()]);
        }
        if description {
            let words: &[u8] =
                if export.device().is_read_only() { b"read-only disk" } else { b"disk" };
            answer.reply(option_reply::INFO, &[&kind(info::DESCRIPTION), words]);
        }
        // Told without being asked too: a minimum of 1 asks nothing of a client that does not look.
        let sizes = export.device().block_sizes();
        // A client forgets all three where it is told to prefer more than it may send.
        let preferred = sizes.preferred.min(MAX_PAYLOAD_BYTES);
        let sizes = [sizes.minimum, preferred, MAX_PAYLOAD_BYTES].map(u32::to_be_bytes);
        let [minimum, preferred, most] = &sizes;
        answer.reply(option_reply::INFO, &[&kind(info::BLOCK_SIZE), minimum, preferred, most]);
    }

    fn upgrade(mut self, to: Replies, answer: &mut Answer<'_>) -> Step<'e> {
        match (self.replies, to) {
            (Replies::Extended, Replies::Structured) => {
                let number = option_reply::EXTENDED_HEADERS_REQUIRED;
                self.refuse_to(answer, number, "extended headers are on")
            }
            (now, to) if now == to => self.refuse_to(answer, option_reply::INVALID, "it is on"),
            (_, to) => {
                self.replies = to;
                self.agree(answer)
            }
        }
    }

    fn meta_context(
        mut self,
        name: &[u8],
        queries: &[&[u8]],
        set: bool,
        answer: &mut Answer<'_>,
    ) -> Step<'e> {
        if set {
            self.selected = None;
        }
        if self.replies == Replies::Simple {
            return self.refuse_to(answer, option_reply::INVALID, "structured replies come first");
        }
        if self.exports.find(name).is_none() {
            return self.refuse_to(answer, option_reply::UNKNOWN, "no such export");
        }
        let mut contexts = Contexts::default();
        for context in MetaContext::ALL {
            let all = !set && queries.is_empty();
            if !all && !queries.iter().any(|query| context.is_meant_by(query, set)) {
                continue;
            }
            contexts.select(context);
            let id = if set { context.id() } else { 0 }.to_be_bytes();
            answer.reply(option_reply::META_CONTEXT, &[&id, context.name()]);
        }
        if set {
            self.selected = Some((name.to_vec(), contexts));
        }
        self.agree(answer)
    }

    fn session(self, export: &'e Export, name: &[u8]) -> Session<'e> {
        // Contexts that were selected for another export say nothing of this one.
        let contexts = match self.selected {
            Some((selected_for, contexts)) if selected_for == name => contexts,
            _ => Contexts::default(),
        };
        Session { export, replies: self.replies, contexts }
    }

    fn agree(self, answer: &mut Answer<'_>) -> Step<'e> {
        answer.ack();
        Step::Again(self)
    }

    fn refuse(self, mut answer: Answer<'_>, number: u32, why: &str) -> Step<'e> {
        self.refuse_to(&mut answer, number, why)
    }

    fn refuse_to(self, answer: &mut Answer<'_>, number: u32, why: &str) -> Step<'e> {
        answer.reply(number, &[why.as_bytes()]);
        Step::Again(self)
    }
}

impl Session<'_> {
    /// How the client's requests begin.
    pub(super) fn framing(&self) -> Framing {
        match self.replies {
            Replies::Simple | Replies::Structured => Framing::Compact,
            Replies::Extended => Framing::Extended,
        }
    }
}

/// Replies to one option.
struct Answer<'a> {
    number: u32,
    out: &'a mut Vec<u8>,
}

impl Answer<'_> {
    fn ack(&mut self) {
        self.reply(option_reply::ACK, &[]);
    }

    fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        self.out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        self.out.extend(self.number.to_be_bytes());
        self.out.extend(kind.to_be_bytes());
        self.out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        self.out.extend(parts.iter().copied().flatten());
    }
}

fn len_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("export names are short").to_be_bytes()
}

/// What a client is told that it may send.
///
/// Several connections see one disk: a flush on any of them covers the writes of all.
fn transmission_flags(export: &Export, replies: Replies) -> u16 {
    use transmission::*;
    let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
    flags |= if export.device().is_read_only() {
        READ_ONLY
    } else {
        SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
    };
    if replies == Replies::Simple { flags } else { flags | SEND_DF }
}
