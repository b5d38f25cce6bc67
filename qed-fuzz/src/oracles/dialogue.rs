//! What an NBD server must answer: the handshake by a model of its states, requests by the bytes of
//! the disk. Shares no code with the server.

use crate::branches::Branches;
use crate::generators::dialogue::{Asked, DISK_SIZE, Dialogue, NAMES, Said};
use crate::model::Model;
use crate::size::usize_of;

const ACK: u32 = 1;
const ERROR: u32 = 1 << 31;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;
const MAX_READ: u64 = 32 << 20;
/// Bytes of a cluster of the QED image.
const CLUSTER: u64 = 64 << 10;

/// How replies look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Simple,
    Structured,
    Extended,
}

/// The client's side of the handshake, as far as it changes what comes later.
#[derive(Debug)]
struct Client {
    form: Form,
    /// For which name, and which contexts.
    selected: Option<(usize, [bool; 2])>,
}

/// What ends the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Transmission { name: usize },
    HungUp,
}

/// The disk that a client has, and how it was agreed on.
#[derive(Debug)]
struct Served {
    form: Form,
    contexts: [bool; 2],
    is_raw: bool,
    model: Model,
}

/// All bytes that the client sends, and what it may expect.
pub(crate) fn bytes_of(dialogue: &Dialogue) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 3];
    let mut client = Client { form: Form::Simple, selected: None };
    for said in &dialogue.options {
        let (number, data) = said.encoded();
        bytes.extend(b"IHAVEOPT");
        bytes.extend(number.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).expect("options are short").to_be_bytes());
        bytes.extend(data);
        if client.hear(said).1.is_some() {
            break;
        }
    }
    for asked in &dialogue.requests {
        bytes.extend(asked.encoded(client.form == Form::Extended));
    }
    bytes.extend(&dialogue.tail);
    bytes
}

/// Holds what the server said against what it must say.
pub(crate) fn assert_answers(dialogue: &Dialogue, said: &[u8], branches: &mut Branches) {
    let mut answers = Answers(said);
    assert_eq!(answers.take(18), b"NBDMAGICIHAVEOPT\0\x03", "the greeting");
    let mut client = Client { form: Form::Simple, selected: None };
    for option in &dialogue.options {
        let (last, end) = client.hear(option);
        let number = option.encoded().0;
        if let Some(last) = last {
            branches.note("option", option);
            assert_eq!(answers.last_option_reply(number), last, "{option:?}");
        }
        match end {
            None => {}
            Some(End::HungUp) => return assert!(answers.0.is_empty(), "behind {option:?}"),
            Some(End::Transmission { name }) => {
                if number == 1 {
                    assert_eq!(answers.u64(), DISK_SIZE, "the size");
                    answers.take(2);
                }
                let contexts = match client.selected {
                    Some((selected_for, contexts)) if selected_for == name => contexts,
                    _ => [false; 2],
                };
                let model = Model::new(DISK_SIZE);
                let served = Served { form: client.form, contexts, is_raw: name == 1, model };
                return served.assert_replies(dialogue, &mut answers, branches);
            }
        }
    }
    // The rest of what was said is no option, or one too many.
}

impl Client {
    /// The last reply to an option, none where there is no reply, and whether it was the last option.
    fn hear(&mut self, said: &Said) -> (Option<u32>, Option<End>) {
        let exists = |name: usize| name < 2;
        let last = match said {
            Said::Abort => return (Some(ACK), Some(End::HungUp)),
            Said::ExportName { name } if exists(*name) => {
                return (None, Some(End::Transmission { name: *name }));
            }
            Said::ExportName { .. } => return (None, Some(End::HungUp)),
            Said::Info { name, go: true } if exists(*name) => {
                return (Some(ACK), Some(End::Transmission { name: *name }));
            }
            Said::List => ACK,
            Said::StartTls => ERROR | 2,
            Said::Undefined { .. } => ERROR | 1,
            Said::Overlong { .. } => ERROR | 3,
            Said::Info { name, .. } => {
                if exists(*name) {
                    ACK
                } else {
                    ERROR | 6
                }
            }
            Said::Structured => match self.form {
                Form::Simple => {
                    self.form = Form::Structured;
                    ACK
                }
                Form::Structured => ERROR | 3,
                Form::Extended => ERROR | 10,
            },
            Said::Extended if self.form == Form::Extended => ERROR | 3,
            Said::Extended => {
                self.form = Form::Extended;
                ACK
            }
            Said::MetaContext { name, allocation, depth, set } => {
                if *set {
                    self.selected = None;
                }
                let is_allowed = self.form != Form::Simple;
                if *set && is_allowed && exists(*name) {
                    self.selected = Some((*name, [*allocation, *depth]));
                }
                match (is_allowed, exists(*name)) {
                    (false, _) => ERROR | 3,
                    (true, false) => ERROR | 6,
                    (true, true) => ACK,
                }
            }
        };
        (Some(last), None)
    }
}

impl Served {
    fn assert_replies(
        mut self,
        dialogue: &Dialogue,
        answers: &mut Answers<'_>,
        branches: &mut Branches,
    ) {
        for asked in &dialogue.requests {
            let asked = &self.as_sent(asked);
            let expected = self.judge(asked);
            branches.note("form", self.form);
            branches.note(command_name(asked.command), expected);
            if expected.is_ok() && asked.command == 2 {
                return assert!(answers.0.is_empty(), "something behind the end");
            }
            match (self.form, expected) {
                (Form::Simple, expected) => {
                    let errno = answers.simple(asked);
                    assert_eq!(errno, expected.err().unwrap_or(0), "{asked:?}");
                    if errno == 0 && asked.command == 0 {
                        let found = answers.take(usize_of(asked.len));
                        assert!(found == self.stored(asked), "{asked:?} in the simple form");
                    }
                }
                (_, Err(errno)) => {
                    let chunk = answers.chunk(self.form, asked);
                    assert_eq!((chunk.is_last, chunk.kind), (true, 32_769), "{asked:?}");
                    assert_eq!(chunk.body[..4], errno.to_be_bytes(), "{asked:?}");
                }
                (_, Ok(())) => self.assert_chunks(asked, answers),
            }
            if expected.is_ok() {
                match asked.command {
                    1 => self.model.fill(asked.at, &asked.payload(false)),
                    // A QED image lets go of whole clusters, and keeps what is left of others.
                    4 if !self.is_raw => {
                        let start = asked.at.next_multiple_of(CLUSTER);
                        let end = (asked.at + asked.len) / CLUSTER * CLUSTER;
                        self.model.fill(start, &vec![0; usize_of(end.saturating_sub(start))]);
                    }
                    6 => self.model.fill(asked.at, &vec![0; usize_of(asked.len)]),
                    _ => {}
                }
            }
        }
    }

    /// A compact header has no more than 32 bits of the length.
    fn as_sent(&self, asked: &Asked) -> Asked {
        let len = if self.form == Form::Extended { asked.len } else { asked.len & 0xffff_ffff };
        Asked { len, ..asked.clone() }
    }

    /// The error of a request, by the protocol.
    fn judge(&self, asked: &Asked) -> Result<(), u32> {
        let Asked { flags, command, at, len, .. } = *asked;
        let allowed = 1 | match command {
            0 if self.form != Form::Simple => 4,
            1 if self.form == Form::Extended => 32,
            6 => 2 | 16,
            7 => 8,
            _ => 0,
        };
        let is_inside = at.checked_add(len).is_some_and(|end| end <= DISK_SIZE);
        match command {
            _ if flags & !allowed != 0 || command > 7 => Err(EINVAL),
            0 if len > MAX_READ || !is_inside => Err(EINVAL),
            1 | 6 if !is_inside => Err(ENOSPC),
            3 if (at, len) != (0, 0) => Err(EINVAL),
            4 | 5 if !is_inside => Err(EINVAL),
            // No image lies below, so zeros of a QED image are fast unless they need space.
            6 if flags & 16 != 0 && self.is_raw => Err(ENOTSUP),
            7 if len == 0 || !is_inside || self.contexts == [false; 2] => Err(EINVAL),
            _ => Ok(()),
        }
    }

    fn stored(&self, asked: &Asked) -> &[u8] {
        &self.model.bytes()[usize_of(asked.at)..][..usize_of(asked.len)]
    }

    fn assert_chunks(&self, asked: &Asked, answers: &mut Answers<'_>) {
        match asked.command {
            0 => self.assert_read(asked, answers),
            7 => self.assert_status(asked, answers),
            _ => {
                let chunk = answers.chunk(self.form, asked);
                assert_eq!((chunk.is_last, chunk.kind), (true, 0), "{asked:?}");
            }
        }
    }

    /// The chunks cover the range once, in whatever order.
    fn assert_read(&self, asked: &Asked, answers: &mut Answers<'_>) {
        let mut found = vec![None; usize_of(asked.len)];
        loop {
            let chunk = answers.chunk(self.form, asked);
            let mut body = Answers(chunk.body);
            if chunk.kind != 0 {
                let start = usize_of(body.u64() - asked.at);
                let data = match chunk.kind {
                    1 => body.0.to_vec(),
                    2 if asked.flags & 4 == 0 => vec![0; usize_of(u64::from(body.u32()))],
                    kind => panic!("{asked:?}: a chunk of kind {kind}"),
                };
                for (slot, byte) in found[start..][..data.len()].iter_mut().zip(&data) {
                    assert_eq!(slot.replace(*byte), None, "{asked:?}: a byte told twice");
                }
            }
            if chunk.is_last {
                break;
            }
        }
        let expected = self.stored(asked).iter().map(|byte| Some(*byte));
        assert!(found.into_iter().eq(expected), "{asked:?} in chunks");
    }

    /// Each context has one chunk, and what it calls zero is zero.
    fn assert_status(&self, asked: &Asked, answers: &mut Answers<'_>) {
        let wanted: Vec<u32> =
            [1, 2].into_iter().zip(self.contexts).filter(|(_, on)| *on).map(|(id, _)| id).collect();
        for (index, id) in wanted.iter().enumerate() {
            let chunk = answers.chunk(self.form, asked);
            assert_eq!(chunk.is_last, index + 1 == wanted.len(), "{asked:?}");
            assert_eq!(chunk.kind, if self.form == Form::Extended { 6 } else { 5 }, "{asked:?}");
            let mut body = Answers(chunk.body);
            assert_eq!(body.u32(), *id, "{asked:?}");
            let (mut at, end) = (asked.at, asked.at + asked.len);
            let mut count = (self.form == Form::Extended).then(|| body.u32());
            while !body.0.is_empty() {
                let (len, flags) = if let Some(count) = &mut count {
                    *count -= 1;
                    (body.u64(), body.u64())
                } else {
                    (body.u32().into(), body.u32().into())
                };
                assert!(len > 0 && len <= end - at, "{asked:?}: {len} bytes at {at:#x}");
                let bytes = &self.model.bytes()[usize_of(at)..][..usize_of(len)];
                let is_zero = bytes.iter().all(|byte| *byte == 0);
                assert!(*id == 2 || flags == 0 || is_zero, "{asked:?}: {flags} at {at:#x}");
                at += len;
            }
            assert_eq!(count.unwrap_or(0), 0, "{asked:?}");
            assert!(at == end || (asked.flags & 8 != 0 && at > asked.at), "{asked:?} to {at:#x}");
        }
    }
}

fn command_name(command: u16) -> &'static str {
    let names =
        ["read", "write", "disconnect", "flush", "trim", "cache", "zeroes", "status", "undefined"];
    names[usize::from(command.min(8))]
}

/// What the server said, from the front.
struct Answers<'a>(&'a [u8]);

struct Chunk<'a> {
    is_last: bool,
    kind: u16,
    body: &'a [u8],
}

impl<'a> Answers<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(len).expect("the server says too little");
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    /// Passes over the replies to an option; the kind of the last.
    fn last_option_reply(&mut self, option: u32) -> u32 {
        loop {
            assert_eq!(self.u64(), 0x3_e889_0455_65a9, "the magic of a reply to {option}");
            assert_eq!(self.u32(), option, "the option of a reply");
            let kind = self.u32();
            let len = self.u32();
            let data = self.take(usize_of(u64::from(len)));
            if kind == ACK || kind & ERROR != 0 {
                return kind;
            }
            if kind == 2 {
                let name = data.get(4..).expect("a length and a name");
                assert!(NAMES[..2].iter().any(|known| known.as_bytes() == name), "{name:?}");
            }
        }
    }

    fn simple(&mut self, asked: &Asked) -> u32 {
        assert_eq!(self.u32(), 0x6744_6698, "the magic of a simple reply");
        let errno = self.u32();
        assert_eq!(self.u64(), u64::from(asked.fill), "the cookie");
        errno
    }

    fn chunk(&mut self, form: Form, asked: &Asked) -> Chunk<'a> {
        let is_extended = form == Form::Extended;
        let magic = if is_extended { 0x6e8a_278c } else { 0x668e_33ef };
        assert_eq!(self.u32(), magic, "the magic of a chunk");
        let (flags, kind) = (self.u16(), self.u16());
        assert_eq!(self.u64(), u64::from(asked.fill), "the cookie");
        let len = if is_extended {
            assert_eq!(self.u64(), asked.at, "the offset");
            self.u64()
        } else {
            self.u32().into()
        };
        Chunk { is_last: flags == 1, kind, body: self.take(usize_of(len)) }
    }
}
