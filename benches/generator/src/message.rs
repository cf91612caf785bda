//! What a message of the sync protocol says, told from its first bytes and a few markers:
//! no JSON is parsed on the way of a poke.

use super::frame::Piece;
use super::needle::{Needle, Tail, decimal, hexadecimal};

/// Bytes of a message that tell its kind: `["pokeStart` is the longest that matters.
const PREFIX: usize = 8;
/// Most that is kept of an error message or a poke's end, in bytes.
const TEXT_MAX: usize = 2048;
/// Digits of a marker's number.
pub const MARKER_DIGITS: usize = 13;
/// Text before a marker's number, in a column of a row.
pub const MARKER_TEXT: &str = "kelvin-bench:";
/// Text before the digits of a query hash of ours.
pub const HASH_TEXT: &str = "kb";
/// Hexadecimal digits of a query hash of ours.
pub const HASH_DIGITS: usize = 16;

/// What to look for in the parts of pokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Which queries are got, and how many row operations there are.
    Queries,
    /// The greatest marker.
    Marker,
    /// What a client is shown that comes back: row operations, the greatest marker, and
    /// whether it has to start over.
    Return,
    /// Nothing: only count.
    Nothing,
}

/// The needles, made once for all the connections of a thread.
pub struct Needles {
    marker: Needle,
    row: Needle,
    got: Needle,
    hash: Needle,
    cancel: Needle,
    clear: Needle,
    cookie: Needle,
}

/// Text before a poke's cookie. Cookies hold nothing that JSON would escape.
const COOKIE_TEXT: &str = "\"cookie\":\"";

impl Needles {
    /// Prepares the searches.
    pub fn new() -> Needles {
        Needles {
            marker: Needle::new(MARKER_TEXT, MARKER_DIGITS),
            row: Needle::new("\"tableName\":", 0),
            got: Needle::new("\"gotQueriesPatch\"", 0),
            hash: Needle::new("\"hash\":\"kb", HASH_DIGITS),
            cancel: Needle::new("\"cancel\":true", 0),
            clear: Needle::new("\"op\":\"clear\"", 0),
            cookie: Needle::new(COOKIE_TEXT, 0),
        }
    }
}

/// What a poke held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poke {
    /// The greatest marker; 0 = none.
    pub marker: u64,
    /// Row operations.
    pub rows: u64,
    /// Hashes of queries that became got.
    pub got: Vec<u64>,
    /// All that the client had was cleared.
    pub cleared: bool,
    /// What the client has from now on.
    pub cookie: String,
}

/// A message that is complete.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first message of a connection.
    Connected,
    /// A poke that was not cancelled.
    Poke(&'a Poke),
    /// Answer to a ping.
    Pong,
    /// An error, or queries that could not be transformed: the text of the message.
    Error(&'a str),
    /// Anything else that changes nothing here.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Start,
    Part,
    End,
    Pong,
    Connected,
    Error,
    Other,
}

/// Puts the messages of one connection together.
#[derive(Debug)]
pub struct MessageReader {
    kind: Kind,
    prefix: [u8; PREFIX],
    prefix_length: usize,
    tail: Tail,
    text: Vec<u8>,
    /// The part that is being read names got queries.
    names_got: bool,
    poke: Poke,
}

impl MessageReader {
    /// A reader before the first message.
    pub fn new() -> MessageReader {
        MessageReader {
            kind: Kind::Unknown,
            prefix: [0; PREFIX],
            prefix_length: 0,
            tail: Tail::default(),
            text: Vec::new(),
            names_got: false,
            poke: Poke::default(),
        }
    }

    /// Takes a piece of a text message; gives the message when it is complete.
    pub fn read(&mut self, piece: &Piece<'_>, search: Search, needles: &Needles) -> Option<Message<'_>> {
        if piece.first {
            self.begin();
        }
        if self.kind == Kind::Unknown {
            let n = piece.bytes.len().min(PREFIX - self.prefix_length);
            self.prefix[self.prefix_length..self.prefix_length + n].copy_from_slice(&piece.bytes[..n]);
            self.prefix_length += n;
            if self.prefix_length == PREFIX || piece.last {
                self.kind = kind(&self.prefix);
            }
        }
        match self.kind {
            Kind::Part if search != Search::Nothing => self.search(piece, search, needles),
            Kind::End | Kind::Error => self.keep_text(piece.bytes),
            _ => {}
        }
        // The first bytes of a message may come alone, before its kind is known.
        if self.kind == Kind::Unknown {
            self.keep_text(piece.bytes);
        }
        if piece.last { Some(self.complete(needles)) } else { None }
    }

    fn begin(&mut self) {
        self.kind = Kind::Unknown;
        self.prefix = [0; PREFIX];
        self.prefix_length = 0;
        self.names_got = false;
        self.tail.clear();
        self.text.clear();
    }

    fn keep_text(&mut self, bytes: &[u8]) {
        let room = TEXT_MAX - self.text.len();
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn search(&mut self, piece: &Piece<'_>, search: Search, needles: &Needles) {
        let MessageReader { tail, poke, names_got, .. } = self;
        if matches!(search, Search::Marker | Search::Return) {
            tail.each(piece.bytes, &needles.marker, |_, v| {
                poke.marker = poke.marker.max(decimal(v).unwrap_or(0));
            });
        }
        if matches!(search, Search::Queries | Search::Return) {
            tail.each(piece.bytes, &needles.row, |_, _| poke.rows += 1);
        }
        if search == Search::Return {
            tail.each(piece.bytes, &needles.clear, |_, _| poke.cleared = true);
        }
        if search == Search::Queries {
            let mut from = if *names_got { Some(isize::MIN) } else { None };
            if from.is_none() {
                tail.each(piece.bytes, &needles.got, |at, _| from = from.or(Some(at)));
            }
            if let Some(from) = from {
                *names_got = true;
                tail.each(piece.bytes, &needles.hash, |at, v| {
                    if at > from {
                        poke.got.extend(hexadecimal(v));
                    }
                });
            }
        }
        if !piece.last {
            tail.keep(piece.bytes);
        }
    }

    fn complete(&mut self, needles: &Needles) -> Message<'_> {
        match self.kind {
            Kind::Start => {
                self.poke.marker = 0;
                self.poke.rows = 0;
                self.poke.got.clear();
                self.poke.cleared = false;
                Message::Other
            }
            Kind::End => {
                let mut cancelled = false;
                Tail::default().each(&self.text, &needles.cancel, |_, _| cancelled = true);
                if cancelled {
                    return Message::Other;
                }
                self.poke.cookie.clear();
                self.poke.cookie.push_str(cookie(&self.text, needles));
                Message::Poke(&self.poke)
            }
            Kind::Connected => Message::Connected,
            Kind::Pong => Message::Pong,
            Kind::Error => Message::Error(std::str::from_utf8(&self.text).unwrap_or("(not UTF-8)")),
            Kind::Part | Kind::Other | Kind::Unknown => Message::Other,
        }
    }
}

/// The cookie in the end of a poke; empty: there is none.
fn cookie<'a>(end: &'a [u8], needles: &Needles) -> &'a str {
    let mut found = "";
    Tail::default().each(end, &needles.cookie, |at, _| {
        let rest = end.get(at as usize + COOKIE_TEXT.len()..).unwrap_or_default();
        let length = memchr::memchr(b'"', rest).unwrap_or(0);
        found = std::str::from_utf8(&rest[..length]).unwrap_or("");
    });
    found
}

fn kind(prefix: &[u8; PREFIX]) -> Kind {
    match prefix {
        b"[\"pokeSt" => Kind::Start,
        b"[\"pokePa" => Kind::Part,
        b"[\"pokeEn" => Kind::End,
        b"[\"connec" => Kind::Connected,
        b"[\"error\"" | b"[\"transf" => Kind::Error,
        p if p.starts_with(b"[\"pong\"") => Kind::Pong,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::TEXT;
    use super::*;

    /// Feeds messages in pieces of `step` bytes and describes what comes out.
    fn read(messages: &[&str], step: usize, search: Search) -> Vec<String> {
        let needles = Needles::new();
        let mut reader = MessageReader::new();
        let mut out = Vec::new();
        for message in messages {
            let count = message.len().div_ceil(step);
            for (i, bytes) in message.as_bytes().chunks(step).enumerate() {
                let piece = Piece { opcode: TEXT, bytes, first: i == 0, last: i + 1 == count };
                if let Some(m) = reader.read(&piece, search, &needles) {
                    out.push(format!("{m:?}"));
                }
            }
        }
        out
    }

    fn poke(marker: u64, rows: u64, got: &str, cleared: bool, cookie: &str) -> String {
        format!(
            "Poke(Poke {{ marker: {marker}, rows: {rows}, got: {got}, cleared: {cleared}, cookie: {cookie:?} }})"
        )
    }

    const POKE: [&str; 4] = [
        r#"["pokeStart",{"pokeID":"0b","baseCookie":null}]"#,
        r#"["pokePart",{"pokeID":"0b","desiredQueriesPatches":{"c":[{"op":"put","hash":"kb00000000000000ee"}]},"gotQueriesPatch":[{"op":"put","hash":"kb00000000000000ff"}],"rowsPatch":[{"op":"put","tableName":"issues","value":{"title":"kelvin-bench:0000000000007"}}]}]"#,
        r#"["pokePart",{"pokeID":"0b","rowsPatch":[{"op":"put","tableName":"users","value":{}}]}]"#,
        r#"["pokeEnd",{"pokeID":"0b","cookie":"0b"}]"#,
    ];

    #[test]
    fn a_poke_in_every_cut() {
        for step in [1, 3, 7, 11, 64, 1000] {
            let queries = read(&POKE, step, Search::Queries);
            assert_eq!(queries[3], poke(0, 2, "[255]", false, "0b"), "step {step}");
            let marker = read(&POKE, step, Search::Marker);
            assert_eq!(marker[3], poke(7, 0, "[]", false, "0b"), "step {step}");
            let back = read(&POKE, step, Search::Return);
            assert_eq!(back[3], poke(7, 2, "[]", false, "0b"), "step {step}");
        }
    }

    #[test]
    fn starting_over_is_seen_in_every_cut_and_only_in_its_poke() {
        let clear = r#"["pokePart",{"pokeID":"0b","rowsPatch":[{"op":"clear"}]}]"#;
        // A row that only speaks of it.
        let row = r#"["pokePart",{"pokeID":"0b","rowsPatch":[{"op":"put","tableName":"issues","value":{"title":"{\"op\":\"clear\"}"}}]}]"#;
        let end = r#"["pokeEnd",{"pokeID":"0b","cookie":"4l1tc8:0b"}]"#;
        for step in [1, 3, 11, 1000] {
            let got = read(&[POKE[0], clear, end, POKE[0], row, end], step, Search::Return);
            assert_eq!(got[2], poke(0, 0, "[]", true, "4l1tc8:0b"), "step {step}");
            assert_eq!(got[5], poke(0, 1, "[]", false, "4l1tc8:0b"), "step {step}");
        }
    }

    #[test]
    fn a_cancelled_poke_shows_nothing() {
        let end = r#"["pokeEnd",{"pokeID":"0b","cookie":"","cancel":true}]"#;
        let empty = [POKE[0], r#"["pokeEnd",{"pokeID":"0b","cookie":"0b"}]"#];
        for step in [1, 9, 1000] {
            assert_eq!(read(&[POKE[0], POKE[1], end], step, Search::Marker)[2], "Other");
            let after = read(&[&[POKE[0], POKE[1], end][..], &empty].concat(), step, Search::Marker);
            assert_eq!(after[4], poke(0, 0, "[]", false, "0b"));
        }
    }

    #[test]
    fn other_messages() {
        let error = r#"["error",{"kind":"Internal","message":"no"}]"#;
        let messages = [r#"["connected",{"wsid":"w"}]"#, r#"["pong",{}]"#, error, r#"["deleteClients",{}]"#];
        for step in [1, 5, 1000] {
            let got = read(&messages, step, Search::Marker);
            assert_eq!(got, ["Connected", "Pong", &format!("Error({error:?})"), "Other"], "step {step}");
        }
    }
}
