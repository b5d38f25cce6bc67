//! The protocol word by word: each option and each command, those that are wrong too.

use std::io::ErrorKind;

use qed_core::CreateOptions;
use qed_export::Durability;
use qed_export::server::{Export, Exports};
use qed_spec::Geometry;

use crate::client::*;

const ACK: u32 = 1;
const UNSUPPORTED: u32 = ERROR | 1;
const POLICY: u32 = ERROR | 2;
const INVALID: u32 = ERROR | 3;
const UNKNOWN: u32 = ERROR | 6;
const TOO_BIG: u32 = ERROR | 9;
const EXTENDED_REQUIRED: u32 = ERROR | 10;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const ZEROES: u16 = 6;
const STATUS: u16 = 7;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const FAST: u16 = 16;
const PAYLOAD: u16 = 32;

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let count = u32::try_from(queries.len()).expect("few").to_be_bytes();
    let queries: Vec<u8> = queries.iter().flat_map(|query| string(query)).collect();
    [&string(name)[..], &count, &queries].concat()
}

fn info(name: &str, wanted: &[u16]) -> Vec<u8> {
    let count = u16::try_from(wanted.len()).expect("few").to_be_bytes();
    let wanted: Vec<u8> = wanted.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    [&string(name)[..], &count, &wanted].concat()
}

#[test]
fn each_option_has_its_last_reply() {
    let long = "x".repeat(4097);
    let many: Vec<&str> = vec!["a"; 65];
    let table: &[(u32, Vec<u8>, u32)] = &[
        (LIST, vec![], ACK),
        (LIST, vec![1], INVALID),
        (INFO, info("a", &[]), ACK),
        (INFO, info("b", &[0, 1, 2, 3, 77]), ACK),
        (INFO, info("c", &[]), UNKNOWN),
        (INFO, info("", &[]), UNKNOWN),
        (INFO, info(&long, &[]), TOO_BIG),
        (INFO, vec![0, 0, 0, 9, b'a'], INVALID),
        (INFO, vec![255; 4], INVALID),
        (INFO, vec![], INVALID),
        (INFO, [info("a", &[]), vec![0]].concat(), INVALID),
        (GO, info("c", &[]), UNKNOWN),
        (GO, vec![0, 0, 0, 1, b'a', 0, 1], INVALID),
        (STARTTLS, vec![], POLICY),
        (STARTTLS, vec![0], INVALID),
        (STRUCTURED, vec![1], INVALID),
        (EXTENDED, vec![1], INVALID),
        (LIST_META, meta("a", &[]), INVALID),
        (SET_META, meta("a", &["base:allocation"]), INVALID),
        (SET_META, meta("a", &many), TOO_BIG),
        (SET_META, meta("a", &[&long]), TOO_BIG),
        (LIST_META, vec![0, 0, 0, 1, b'a'], INVALID),
        (4, vec![], UNSUPPORTED),
        (12, vec![], UNSUPPORTED),
        (u32::MAX, vec![7; 60_000], UNSUPPORTED),
    ];
    for (option, data, last) in table {
        // The dialogue goes on behind a refused option as behind any other.
        let words = Words::hello().option(*option, data).option(ABORT, b"bye");
        let (mut answers, ended) = words.say(&two_exports());
        answers.option_ends(*option, *last);
        answers.option_ends(ABORT, ACK);
        answers.end();
        assert!(ended.is_ok(), "{option}: {ended:?}");
    }
}

#[test]
fn what_cannot_be_answered_ends_the_dialogue() {
    let table: &[(&str, Words, ErrorKind)] = &[
        ("unknown flags", Words(vec![0, 0, 0, 4]), ErrorKind::InvalidData),
        ("no fixed newstyle", Words(vec![0; 4]), ErrorKind::InvalidData),
        ("no option", Words::hello().bytes(&[0; 16]), ErrorKind::InvalidData),
        (
            "an option of 4 GiB",
            Words::hello().bytes(b"IHAVEOPT\0\0\0\x06\xff\xff\xff\xff"),
            ErrorKind::InvalidData,
        ),
        ("half an option", Words::hello().bytes(b"IHAVE"), ErrorKind::UnexpectedEof),
        ("no request", Words::hello().go("a").bytes(&[0; 28]), ErrorKind::InvalidData),
        ("half a request", Words::hello().go("a").bytes(&[0; 27]), ErrorKind::UnexpectedEof),
        (
            "4 GiB of payload",
            Words::hello().go("a").request(0, WRITE, 0, u32::MAX),
            ErrorKind::InvalidData,
        ),
        (
            "half a payload",
            Words::hello().go("a").request(0, WRITE, 0, 512).bytes(&[1; 511]),
            ErrorKind::UnexpectedEof,
        ),
    ];
    for (what, words, kind) in table {
        let (_, ended) = words.say(&two_exports());
        assert_eq!(ended.map_err(|error| error.kind()), Err(*kind), "{what}");
    }
}

#[test]
fn the_oldest_way_to_ask_gives_a_disk_or_hangs_up() {
    for (flags, padding) in [(3, 0), (1, 124)] {
        let words = Words(vec![0, 0, 0, flags]).option(EXPORT_NAME, b"a");
        let (mut answers, ended) = words.request(0, READ, 0, 512).say(&two_exports());
        assert_eq!(answers.u64(), SIZE);
        assert_eq!(answers.u16() & 3, 1, "has flags, is not read-only");
        assert_eq!(answers.take(padding), vec![0; padding]);
        assert_eq!(answers.simple(), 0);
        assert_eq!(answers.take(512), [0; 512]);
        assert!(ended.is_ok());
    }
    for name in [&b"c"[..], &[b'x'; 5000]] {
        let (answers, _) = Words::hello().option(EXPORT_NAME, name).go("a").say(&two_exports());
        answers.end();
    }
}

#[test]
fn an_export_is_told_with_size_and_block_sizes() {
    let words = Words::hello().option(LIST, b"").option(GO, &info("a", &[1, 2, 3]));
    let (mut answers, _) = words.say(&two_exports());
    let listed = answers.option_ends(LIST, ACK);
    assert_eq!(listed, [(2, string("a")), (2, string("b"))]);
    let told = answers.option_ends(GO, ACK);
    let of = |kind: u16| {
        let found = told.iter().find(|(_, data)| data[..2] == kind.to_be_bytes());
        found.map(|(_, data)| data[2..].to_vec()).unwrap_or_default()
    };
    assert_eq!(of(0)[..8], SIZE.to_be_bytes());
    let flags = u16::from_be_bytes(of(0)[8..].try_into().unwrap());
    assert_eq!(flags, 0b1101_0110_1101, "no read-only, rotational, DF or resize");
    assert_eq!(of(1), *b"a");
    let sizes = [1_u32, 65_536, 32 << 20].map(u32::to_be_bytes).concat();
    assert_eq!(of(3), sizes);
}

#[test]
fn commands_in_the_simple_form_have_their_errors() {
    let size32 = u32::try_from(SIZE).unwrap();
    let table = [
        ("write", 0, WRITE, 0, 512, 0),
        ("write with FUA", FUA, WRITE, SIZE - 512, 512, 0),
        ("write past the end", 0, WRITE, SIZE - 511, 512, ENOSPC),
        ("write at 2^64 - 1", 0, WRITE, u64::MAX, 512, ENOSPC),
        ("write with DF", DF, WRITE, 0, 512, EINVAL),
        ("write of too much", 0, WRITE, 0, (32 << 20) + 1, EINVAL),
        ("flush", 0, FLUSH, 0, 0, 0),
        ("flush of a range", 0, FLUSH, 0, 512, EINVAL),
        ("trim", FUA, TRIM, 0, size32, 0),
        ("trim past the end", 0, TRIM, 1, size32, EINVAL),
        ("cache", 0, CACHE, 0, size32, 0),
        ("cache past the end", 0, CACHE, 1, size32, EINVAL),
        ("zeroes", 0, ZEROES, 1, 100_000, 0),
        ("zeroes past the end", 0, ZEROES, 1, size32, ENOSPC),
        ("zeroes of 4 GiB", 0, ZEROES, 0, u32::MAX, ENOSPC),
        ("zeroes without holes", NO_HOLE | FUA, ZEROES, 1, 100_000, 0),
        ("zeroes, fast", FAST, ZEROES, 0, 65_536, 0),
        ("zeroes without holes, fast", FAST | NO_HOLE, ZEROES, 0, 65_536, ENOTSUP),
        ("no zeroes", 0, ZEROES, 0, 0, 0),
        ("block status without a context", 0, STATUS, 0, 512, EINVAL),
        ("read past the end", 0, READ, SIZE, 1, EINVAL),
        ("read of too much", 0, READ, 0, (32 << 20) + 1, EINVAL),
        ("read with DF", DF, READ, 0, 512, EINVAL),
        ("read with a flag nobody knows", 1 << 9, READ, 0, 512, EINVAL),
        ("resize", 0, 8, 0, 0, EINVAL),
        ("command 65535", 0, u16::MAX, 0, 0, EINVAL),
    ];
    for (what, flags, command, at, len, errno) in table {
        let mut words = Words::hello().go("a").request(flags, command, at, len);
        if command == WRITE {
            words = words.bytes(&vec![7; len as usize]);
        }
        // The next request is understood whatever came before it.
        let words = words.request(0, READ, 65_536, 8).request(0, DISCONNECT, 0, 0).bytes(b"junk");
        let (mut answers, ended) = words.say(&two_exports());
        answers.option_ends(GO, ACK);
        assert_eq!(answers.simple(), errno, "{what}");
        assert_eq!((answers.simple(), answers.take(8)), (0, vec![0; 8]), "{what}");
        answers.end();
        assert!(ended.is_ok(), "{what}: {ended:?}");
    }
}

#[test]
fn what_is_written_is_read_in_every_form() {
    let write = |words: Words| words.request(0, WRITE, 1000, 3).bytes(b"abc");
    let (mut answers, _) =
        write(Words::hello().go("b")).request(0, READ, 999, 5).say(&two_exports());
    answers.option_ends(GO, ACK);
    assert_eq!((answers.simple(), answers.simple(), answers.take(5)), (0, 0, b"\0abc\0".to_vec()));
    answers.end();

    let words = write(Words::hello().option(STRUCTURED, b"").go("b"));
    let (mut answers, _) = words.request(DF, READ, 999, 5).say(&two_exports());
    answers.option_ends(STRUCTURED, ACK);
    answers.option_ends(GO, ACK);
    assert_eq!(answers.chunk(), Chunk { is_last: true, kind: 0, body: vec![] });
    let data = [&999_u64.to_be_bytes()[..], b"\0abc\0"].concat();
    assert_eq!(answers.chunk(), Chunk { is_last: true, kind: 1, body: data.clone() });
    answers.end();

    let words = Words::hello().option(EXTENDED, b"").go("b");
    let words = words.extended(PAYLOAD, WRITE, 1000, 3).bytes(b"abc").extended(0, READ, 999, 5);
    let (mut answers, _) = words.say(&two_exports());
    answers.option_ends(EXTENDED, ACK);
    answers.option_ends(GO, ACK);
    assert_eq!(answers.extended_chunk(1000), Chunk { is_last: true, kind: 0, body: vec![] });
    assert_eq!(answers.extended_chunk(999), Chunk { is_last: true, kind: 1, body: data });
    answers.end();
}

#[test]
fn a_long_read_leaves_holes_out() {
    let words = Words::hello().option(STRUCTURED, b"").go("a");
    let words = words.request(0, WRITE, 65_536, 1).bytes(b"x").request(0, READ, 0, 262_144);
    let (mut answers, _) = words.request(DF, READ, 0, 262_144).say(&two_exports());
    answers.option_ends(STRUCTURED, ACK);
    answers.option_ends(GO, ACK);
    assert!(answers.chunk().is_last);
    let hole = |at: u64, len: u32| [&at.to_be_bytes()[..], &len.to_be_bytes()].concat();
    assert_eq!(answers.chunk(), Chunk { is_last: false, kind: 2, body: hole(0, 65_536) });
    let data = answers.chunk();
    assert_eq!((data.is_last, data.kind, data.body.len()), (false, 1, 8 + 65_536));
    assert_eq!(data.body[..9], [0, 0, 0, 0, 0, 1, 0, 0, b'x']);
    assert_eq!(answers.chunk(), Chunk { is_last: true, kind: 2, body: hole(131_072, 131_072) });
    let whole = answers.chunk();
    assert_eq!((whole.is_last, whole.kind, whole.body.len()), (true, 1, 8 + 262_144));
    answers.end();
}

#[test]
fn a_long_read_of_very_many_holes_is_told_in_few_chunks() {
    const CLUSTER: u32 = 4096;
    let geometry = Geometry::new(CLUSTER, 4).expect("a legal shape");
    let disk = qed_disk_of(&CreateOptions { geometry, ..CreateOptions::new(4 * SIZE) });
    for at in (0..4 * SIZE).step_by(2 * CLUSTER as usize) {
        disk.write_at(&[7; CLUSTER as usize], at, Durability::AfterFlush).expect("written");
    }
    let exports = Exports::new(vec![Export::new(*b"a", disk)]).expect("a name");
    let words = Words::hello().option(STRUCTURED, b"").go("a").request(0, READ, 0, 4 << 20);
    let (mut answers, _) = words.say(&exports);
    answers.option_ends(STRUCTURED, ACK);
    answers.option_ends(GO, ACK);
    let mut found = vec![0; 4 << 20];
    let mut chunks = 0;
    loop {
        chunks += 1;
        let chunk = answers.chunk();
        if chunk.kind == 1 {
            let (at, data) = chunk.body.split_at(8);
            let at = u64::from_be_bytes(at.try_into().expect("eight"));
            found[usize::try_from(at).expect("small")..][..data.len()].copy_from_slice(data);
        }
        if chunk.is_last {
            break;
        }
    }
    answers.end();
    let expected = [[7; CLUSTER as usize], [0; CLUSTER as usize]].concat().repeat(512);
    assert!(found == expected);
    assert!(chunks < 600, "{chunks} chunks for 512 holes");
}

#[test]
fn upgrades_come_once_and_in_order() {
    let words = Words::hello()
        .option(STRUCTURED, b"")
        .option(STRUCTURED, b"")
        .option(EXTENDED, b"")
        .option(EXTENDED, b"")
        .option(STRUCTURED, b"");
    let (mut answers, _) = words.say(&two_exports());
    answers.option_ends(STRUCTURED, ACK);
    answers.option_ends(STRUCTURED, INVALID);
    answers.option_ends(EXTENDED, ACK);
    answers.option_ends(EXTENDED, INVALID);
    answers.option_ends(STRUCTURED, EXTENDED_REQUIRED);
    answers.end();
}

/// The contexts that a query finds: ids when it selects.
#[track_caller]
fn contexts(option: u32, queries: &[&str]) -> Vec<(u32, String)> {
    let words = Words::hello().option(STRUCTURED, b"").option(option, &meta("a", queries));
    let (mut answers, _) = words.say(&two_exports());
    answers.option_ends(STRUCTURED, ACK);
    let told = answers.option_ends(option, ACK);
    let context = |(kind, data): (u32, Vec<u8>)| {
        assert_eq!(kind, 4);
        let (id, name) = data.split_at(4);
        (
            u32::from_be_bytes(id.try_into().expect("four")),
            String::from_utf8(name.to_vec()).expect("text"),
        )
    };
    told.into_iter().map(context).collect()
}

#[test]
fn contexts_are_listed_by_namespace_and_selected_by_name() {
    let (base, depth) = ("base:allocation", "qemu:allocation-depth");
    let named = |list: &[(u32, &str)]| -> Vec<(u32, String)> {
        list.iter().map(|(id, name)| (*id, (*name).to_owned())).collect()
    };
    assert_eq!(contexts(LIST_META, &[]), named(&[(0, base), (0, depth)]));
    assert_eq!(contexts(LIST_META, &["base:"]), named(&[(0, base)]));
    assert_eq!(contexts(LIST_META, &["qemu:", "x:"]), named(&[(0, depth)]));
    assert_eq!(contexts(LIST_META, &[base, base]), named(&[(0, base)]));
    assert_eq!(contexts(SET_META, &[]), named(&[]));
    assert_eq!(contexts(SET_META, &["base:", "ase:allocation", ""]), named(&[]));
    assert_eq!(contexts(SET_META, &[depth, base]), named(&[(1, base), (2, depth)]));
}

#[test]
fn block_status_tells_both_contexts() {
    let both = meta("a", &["base:allocation", "qemu:allocation-depth"]);
    let list = |list: &[u32]| list.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let start = || Words::hello().option(STRUCTURED, b"").option(SET_META, &both).go("a");
    let words = start().request(0, WRITE, 65_536, 1).bytes(b"x");
    let words = words.request(0, STATUS, 0, u32::try_from(SIZE).unwrap());
    let words = words.request(REQ_ONE, STATUS, 65_536, 100).request(0, STATUS, 1, u32::MAX);
    let (mut answers, _) = words.request(0, STATUS, 0, 0).say(&two_exports());
    for option in [STRUCTURED, SET_META, GO] {
        answers.option_ends(option, ACK);
    }
    assert!(answers.chunk().is_last);
    let body = list(&[1, 65_536, 3, 65_536, 0, 917_504, 3]);
    assert_eq!(answers.chunk(), Chunk { is_last: false, kind: 5, body });
    let body = list(&[2, 65_536, 0, 65_536, 1, 917_504, 0]);
    assert_eq!(answers.chunk(), Chunk { is_last: true, kind: 5, body });
    assert_eq!(answers.chunk().body, list(&[1, 100, 0]));
    assert_eq!(answers.chunk().body, list(&[2, 100, 1]));
    for what in ["past the end", "empty"] {
        let error = answers.chunk();
        assert_eq!((error.is_last, error.kind), (true, 32_769), "{what}");
        assert_eq!(error.body[..4], EINVAL.to_be_bytes(), "{what}");
    }
    answers.end();
}

#[test]
fn extended_block_status_has_long_lengths() {
    let words =
        Words::hello().option(EXTENDED, b"").option(SET_META, &meta("a", &["base:allocation"]));
    let (mut answers, _) = words.go("a").extended(0, STATUS, 0, SIZE).say(&two_exports());
    for option in [EXTENDED, SET_META, GO] {
        answers.option_ends(option, ACK);
    }
    let body =
        [&1_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &SIZE.to_be_bytes(), &3_u64.to_be_bytes()];
    assert_eq!(answers.extended_chunk(0), Chunk { is_last: true, kind: 6, body: body.concat() });
    answers.end();
}

#[test]
fn contexts_of_another_export_say_nothing() {
    let words =
        Words::hello().option(STRUCTURED, b"").option(SET_META, &meta("b", &["base:allocation"]));
    let (mut answers, _) = words.go("a").request(0, STATUS, 0, 512).say(&two_exports());
    for option in [STRUCTURED, SET_META, GO] {
        answers.option_ends(option, ACK);
    }
    assert_eq!(answers.chunk().kind, 32_769);
}

#[test]
fn an_extended_request_with_a_payload_it_must_not_have_is_passed_over() {
    let words = Words::hello().option(EXTENDED, b"").go("a");
    let words = words.extended(PAYLOAD, READ, 0, 5).bytes(b"extra").extended(0, READ, 0, 1);
    let (mut answers, ended) = words.say(&two_exports());
    answers.option_ends(EXTENDED, ACK);
    answers.option_ends(GO, ACK);
    assert_eq!(answers.extended_chunk(0).body[..4], EINVAL.to_be_bytes());
    assert_eq!(answers.extended_chunk(0).kind, 1);
    assert!(ended.is_ok());
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    use std::sync::Arc;

    use qed_core::RawFile;
    use qed_export::ReadOnlyDisk;
    use qed_io::MemoryStorage;

    let disk = RawFile::open(Arc::new(MemoryStorage::new(vec![5; 1 << 20]))).unwrap();
    let disk = Arc::new(ReadOnlyDisk::new(Arc::new(disk)));
    let exports = Exports::new(vec![Export::new(*b"only", disk)]).unwrap();
    // The only export has the empty name too.
    let words = Words::hello().go("").request(0, WRITE, 0, 4).bytes(b"none");
    let words = words.request(0, ZEROES, 0, 4).request(0, TRIM, 0, 4).request(0, FLUSH, 0, 0);
    let past = words.request(0, WRITE, SIZE, 4).bytes(b"none");
    let past = past.request(0, ZEROES, SIZE, 4).request(0, TRIM, SIZE, 4);
    let (mut answers, _) = past.request(0, READ, 0, 4).say(&exports);
    let told = answers.option_ends(GO, ACK);
    assert_eq!(told[0].1[11] & 2, 2, "the flag");
    let errors = [0; 8].map(|_| answers.simple());
    assert_eq!(errors, [EPERM, EPERM, EPERM, 0, EPERM, EPERM, EPERM, 0]);
    assert_eq!(answers.take(4), [5; 4]);
}

#[test]
fn a_dialogue_may_end_at_every_byte() {
    let both = meta("a", &["base:allocation", "qemu:allocation-depth"]);
    let words = Words::hello().option(EXTENDED, b"").option(SET_META, &both).go("a");
    let words = words.extended(PAYLOAD, WRITE, 0, 3).bytes(b"abc").extended(0, STATUS, 0, SIZE);
    let words = words.extended(FUA, FLUSH, 0, 0).extended(0, DISCONNECT, 0, 0);
    for len in 0..words.0.len() {
        // Ends without a panic, and in the middle of a word with an error.
        let (_, ended) = Words(words.0[..len].to_vec()).say(&two_exports());
        let kind = ended.err().map(|error| error.kind());
        assert!(matches!(kind, None | Some(ErrorKind::UnexpectedEof)), "{len}: {kind:?}");
    }
}
