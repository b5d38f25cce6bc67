//! What a client says, as bytes, and what the server answers, taken apart. Shares no code with the
//! server, so that a wrong number is not right on both sides.

use std::io::Cursor;
use std::sync::Arc;

use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_export::nbd::converse;
use qed_export::server::{Export, Exports};
use qed_export::{BlockDevice, QedDisk, RawDisk};
use qed_io::{MemoryStorage, Storage};

pub(crate) const SIZE: u64 = 1 << 20;

pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const STARTTLS: u32 = 5;
pub(crate) const INFO: u32 = 6;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED: u32 = 8;
pub(crate) const LIST_META: u32 = 9;
pub(crate) const SET_META: u32 = 10;
pub(crate) const EXTENDED: u32 = 11;

pub(crate) const ERROR: u32 = 1 << 31;

pub(crate) fn qed_disk() -> Arc<dyn BlockDevice> {
    qed_disk_of(&CreateOptions::new(SIZE))
}

pub(crate) fn qed_disk_of(options: &CreateOptions) -> Arc<dyn BlockDevice> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    create(&*storage, options).expect("an image");
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    Arc::new(QedDisk::new(Image::open(storage, &context).expect("it opens")))
}

pub(crate) fn raw_disk() -> Arc<dyn BlockDevice> {
    let bytes = vec![0; usize::try_from(SIZE).expect("small")];
    Arc::new(RawDisk::open(Arc::new(MemoryStorage::new(bytes))).expect("a length"))
}

/// A QED disk named "a" and a raw one named "b".
pub(crate) fn two_exports() -> Exports {
    let exports = vec![Export::new(*b"a", qed_disk()), Export::new(*b"b", raw_disk())];
    Exports::new(exports).expect("two names")
}

/// What a client sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words(pub(crate) Vec<u8>);

impl Words {
    /// The flags of a client that knows the fixed newstyle and wants no zeros.
    pub(crate) fn hello() -> Self {
        Self(vec![0, 0, 0, 3])
    }

    pub(crate) fn option(mut self, number: u32, data: &[u8]) -> Self {
        self.0.extend(b"IHAVEOPT");
        self.0.extend(number.to_be_bytes());
        self.0.extend(u32::try_from(data.len()).expect("short").to_be_bytes());
        self.0.extend(data);
        self
    }

    pub(crate) fn go(self, name: &str) -> Self {
        self.option(GO, &[&string(name)[..], &[0, 0]].concat())
    }

    /// A request with a header of 28 bytes.
    pub(crate) fn request(mut self, flags: u16, command: u16, at: u64, len: u32) -> Self {
        self.0.extend(0x2560_9513_u32.to_be_bytes());
        self.0.extend(flags.to_be_bytes());
        self.0.extend(command.to_be_bytes());
        self.0.extend(0x77_u64.to_be_bytes());
        self.0.extend(at.to_be_bytes());
        self.0.extend(len.to_be_bytes());
        self
    }

    /// A request with a header of 32 bytes.
    pub(crate) fn extended(mut self, flags: u16, command: u16, at: u64, len: u64) -> Self {
        self.0.extend(0x21e4_1c71_u32.to_be_bytes());
        self.0.extend(flags.to_be_bytes());
        self.0.extend(command.to_be_bytes());
        self.0.extend(0x77_u64.to_be_bytes());
        self.0.extend(at.to_be_bytes());
        self.0.extend(len.to_be_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Says it all, and returns what the server answers after its greeting, and how it ended.
    pub(crate) fn say(&self, exports: &Exports) -> (Answers, std::io::Result<()>) {
        let mut output = Vec::new();
        let ended = converse(exports, &mut Cursor::new(&self.0), &mut output);
        let greeting = output.split_off(output.len().min(18));
        assert_eq!(output, *b"NBDMAGICIHAVEOPT\0\x03", "the greeting");
        (Answers(greeting), ended)
    }
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// What the server said, from the front.
#[derive(Debug)]
pub(crate) struct Answers(pub(crate) Vec<u8>);

/// A structured or extended chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) is_last: bool,
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

impl Answers {
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        assert!(self.0.len() >= len, "{len} bytes are due, there are {:?}", self.0);
        let rest = self.0.split_off(len);
        std::mem::replace(&mut self.0, rest)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two"))
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four"))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().expect("eight"))
    }

    /// The kind and data of the next reply to an option.
    #[track_caller]
    pub(crate) fn option_reply(&mut self, option: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x3_e889_0455_65a9, "the magic of a reply to an option");
        assert_eq!(self.u32(), option);
        let kind = self.u32();
        let len = self.u32();
        (kind, self.take(len as usize))
    }

    /// Passes over the replies to an option, the last of which is `last`.
    #[track_caller]
    pub(crate) fn option_ends(&mut self, option: u32, last: u32) -> Vec<(u32, Vec<u8>)> {
        let mut told = Vec::new();
        loop {
            match self.option_reply(option) {
                (kind, data) if kind == 1 || kind & ERROR != 0 => {
                    assert_eq!(kind, last, "{}", String::from_utf8_lossy(&data));
                    return told;
                }
                told_one => told.push(told_one),
            }
        }
    }

    /// The error of the next simple reply.
    #[track_caller]
    pub(crate) fn simple(&mut self) -> u32 {
        assert_eq!(self.u32(), 0x6744_6698, "the magic of a simple reply");
        let errno = self.u32();
        assert_eq!(self.u64(), 0x77, "the cookie");
        errno
    }

    /// The next chunk of a structured reply.
    #[track_caller]
    pub(crate) fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), 0x668e_33ef, "the magic of a chunk");
        let (flags, kind) = (self.u16(), self.u16());
        assert_eq!(self.u64(), 0x77, "the cookie");
        let len = self.u32() as usize;
        Chunk { is_last: flags == 1, kind, body: self.take(len) }
    }

    /// The next chunk of an extended reply to a request at `at`.
    #[track_caller]
    pub(crate) fn extended_chunk(&mut self, at: u64) -> Chunk {
        assert_eq!(self.u32(), 0x6e8a_278c, "the magic of an extended chunk");
        let (flags, kind) = (self.u16(), self.u16());
        assert_eq!(self.u64(), 0x77, "the cookie");
        assert_eq!(self.u64(), at, "the offset of the request");
        let len = usize::try_from(self.u64()).expect("short");
        Chunk { is_last: flags == 1, kind, body: self.take(len) }
    }

    #[track_caller]
    pub(crate) fn end(&self) {
        assert_eq!(self.0, [0_u8; 0], "nothing else is said");
    }
}
