//! Values of every column type: known ones with what a client must see, and random ones.

use kelvin::model::value::Value;

use super::random::Random;

/// An expected value that can be a constant.
#[derive(Clone, Copy)]
pub enum Is {
    Null,
    Int(i64),
    Real(f64),
    Text(&'static str),
    Blob(&'static [u8]),
}

impl Is {
    pub fn value(self) -> Value {
        match self {
            Is::Null => Value::Null,
            Is::Int(i) => Value::Integer(i),
            Is::Real(r) => Value::Real(r),
            Is::Text(t) => Value::Text(t.into()),
            Is::Blob(b) => Value::Blob(b.into()),
        }
    }
}

use Is::{Blob, Int, Null, Real, Text};

/// Input text, and what is stored.
pub type Case = (&'static str, Is);

/// Types that the columns need.
pub const PRELUDE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"', 'very, happy');
    CREATE DOMAIN age AS int CHECK (VALUE >= 0);
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN frame AS box;
    CREATE TYPE piped;
    CREATE FUNCTION piped_in(cstring) RETURNS piped LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION piped_out(piped) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE piped (INPUT = piped_in, OUTPUT = piped_out, LIKE = text, DELIMITER = '|');
";

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Every type of `docs/spec/replication.md` §7 with the values that are easily got wrong.
pub const CASES: &[(&str, &[Case])] = &[
    ("int2", &[("-32768", Int(-32768)), ("32767", Int(32767)), ("0", Int(0))]),
    ("int4", &[("-2147483648", Int(-2147483648)), ("2147483647", Int(2147483647))]),
    (
        "int8",
        &[
            ("-9223372036854775808", Int(i64::MIN)),
            ("9223372036854775807", Int(i64::MAX)),
            ("9007199254740993", Int(9007199254740993)),
        ],
    ),
    (
        "float4",
        &[
            ("0.1", Real(0.1)),
            ("16777217", Int(16777216)),
            ("NaN", Null),
            ("-Infinity", Null),
            ("-0", Int(0)),
            ("1e-45", Real(1e-45)),
            ("3.4028235e38", Real(3.4028235e38)),
            ("1.5", Real(1.5)),
        ],
    ),
    (
        "float8",
        &[
            ("0.1", Real(0.1)),
            ("1e21", Real(1e21)),
            ("5e-324", Real(5e-324)),
            ("1.7976931348623157e308", Real(f64::MAX)),
            ("NaN", Null),
            ("Infinity", Null),
            ("100", Int(100)),
            ("-9007199254740991", Int(-9007199254740991)),
            ("-9007199254740992", Real(-9007199254740992.0)),
        ],
    ),
    (
        "numeric",
        &[
            ("1.50", Real(1.5)),
            ("100.000", Int(100)),
            ("0.1", Real(0.1)),
            ("-0.00", Int(0)),
            ("NaN", Null),
            ("Infinity", Null),
            ("12345678901234567890.123", Real(12345678901234567890.123)),
            ("1e400", Null),
            ("0.000000000000000000001", Real(1e-21)),
        ],
    ),
    ("numeric(10,2)", &[("1.5", Real(1.5)), ("-7", Int(-7))]),
    ("bool", &[("t", Int(1)), ("f", Int(0))]),
    (
        "text",
        &[
            ("", Text("")),
            ("a\tb\nc\r\\d\u{8}\u{b}\u{c}", Text("a\tb\nc\r\\d\u{8}\u{b}\u{c}")),
            ("\\N", Text("\\N")),
            ("NULL", Text("NULL")),
            ("0123", Text("0123")),
            ("e\u{301}\u{1f600} it's", Text("e\u{301}\u{1f600} it's")),
            ("\\.", Text("\\.")),
        ],
    ),
    ("varchar(5)", &[("abc", Text("abc")), ("1e5", Text("1e5"))]),
    ("char(5)", &[("ab", Text("ab   ")), ("", Text("     "))]),
    ("uuid", &[("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", Text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"))]),
    (
        "inet",
        &[
            ("10.0.0.1", Text("10.0.0.1/32")),
            ("10.0.0.0/8", Text("10.0.0.0/8")),
            ("::1", Text("::1/128")),
            ("2001:db8::/32", Text("2001:db8::/32")),
        ],
    ),
    ("cidr", &[("10.0.0.0/8", Text("10.0.0.0/8")), ("::/0", Text("::/0"))]),
    ("macaddr", &[("08002b:010203", Text("08:00:2b:01:02:03"))]),
    ("macaddr8", &[("08002b0102030405", Text("08:00:2b:01:02:03:04:05"))]),
    ("pg_lsn", &[("16/B374D848", Text("16/B374D848"))]),
    (
        "mood",
        &[("sad", Text("sad")), ("it's \"ok\"", Text("it's \"ok\"")), ("very, happy", Text("very, happy"))],
    ),
    (
        "date",
        &[
            ("2024-02-29", Int(1709164800000)),
            ("1970-01-01", Int(0)),
            ("1969-12-31", Int(-86400000)),
            ("0044-03-15 BC", Int(-63517824000000)),
            ("5874897-12-31", Real(185331706992000000.0)),
            ("infinity", Null),
            ("-infinity", Null),
        ],
    ),
    (
        "timestamp",
        &[
            ("2024-02-29 12:34:56.789", Int(1709210096789)),
            ("2024-02-29 12:34:56.789012", Real(1709210096789.012)),
            ("4714-11-24 00:00:00 BC", Int(-210866803200000)),
            ("10000-01-01 00:00:00", Int(253402300800000)),
            ("1969-12-31 23:59:59.999999", Real(-0.001)),
            ("infinity", Null),
            ("-infinity", Null),
        ],
    ),
    (
        "timestamptz",
        &[
            ("2000-01-01 05:30:00+05:30", Int(946684800000)),
            ("2024-02-29 12:34:56.789012+00", Real(1709210096789.012)),
            ("0044-03-15 00:00:00+00 BC", Int(-63517824000000)),
            ("infinity", Null),
            ("2024-07-01 00:00:00-07", Int(1719817200000)),
        ],
    ),
    ("time", &[("24:00:00", Int(86400000)), ("00:00:00.0009", Int(0)), ("01:02:03.0049", Int(3723004))]),
    (
        "timetz",
        &[
            ("00:30:00+01", Int(84600000)),
            ("24:00:00+00", Int(86400000)),
            ("23:00:00-01", Int(0)),
            ("00:00:00-15:59:59", Int(57599000)),
        ],
    ),
    (
        "json",
        &[
            ("{\"a\": 1.0 ,\n \"a\":[1,2]}", Text("{\"a\": 1.0 ,\n \"a\":[1,2]}")),
            ("123", Text("123")),
            ("1.50", Text("1.50")),
            ("null", Text("null")),
            ("\"\\u00e9\"", Text("\"\\u00e9\"")),
        ],
    ),
    (
        "jsonb",
        &[
            ("{\"b\":1,\"a\":2}", Text("{\"a\": 2, \"b\": 1}")),
            ("1.50", Text("1.50")),
            ("null", Text("null")),
            ("[]", Text("[]")),
        ],
    ),
    ("bytea", &[("\\x00ff5c0a", Blob(&[0, 255, 92, 10])), ("", Blob(&[]))]),
    ("age", &[("7", Text("7"))]),
    ("pair", &[("(1,\"a b\")", Text("(1,\"a b\")"))]),
    ("interval", &[("1 year 2 mons 03:04:05", Text("1 year 2 mons 03:04:05"))]),
    ("bit(3)", &[("101", Text("101"))]),
    ("tsvector", &[("a fat cat", Text("'a' 'cat' 'fat'"))]),
    ("int4range", &[("[1,5)", Text("[1,5)")), ("empty", Text("empty"))]),
    ("point", &[("(1,2.5)", Text("(1,2.5)"))]),
    ("box", &[("(3,4),(1,2)", Text("(3,4),(1,2)"))]),
    ("\"char\"", &[("x", Text("x"))]),
    ("name", &[("a name", Text("a name"))]),
    ("xml", &[("<a>b</a>", Text("<a>b</a>"))]),
    (
        "int4[]",
        &[
            ("{1,NULL,-3}", Text("[1,null,-3]")),
            ("{}", Text("[]")),
            ("{{1,2},{3,4}}", Text("[[1,2],[3,4]]")),
            ("[0:1]={7,8}", Text("[7,8]")),
            ("[-1:0][2:2]={{7},{8}}", Text("[[7],[8]]")),
        ],
    ),
    ("int4[][]", &[("{{{1},{2}}}", Text("[[[1],[2]]]"))]),
    ("int8[]", &[("{9223372036854775807}", Text("[9223372036854775807]"))]),
    ("float4[]", &[("{0.1,NaN}", Text("[0.1,null]"))]),
    ("numeric[]", &[("{1.50,-0.0,1e30}", Text("[1.5,0,1e+30]"))]),
    ("bool[]", &[("{t,f,NULL}", Text("[true,false,null]"))]),
    (
        "text[]",
        &[
            (
                "{a,\"b c\",\"NULL\",NULL,\"q\\\"\\\\\",\"{x}\",\"\"}",
                Text("[\"a\",\"b c\",\"NULL\",null,\"q\\\"\\\\\",\"{x}\",\"\"]"),
            ),
            ("{\"a\nb\t\"}", Text("[\"a\\nb\\t\"]")),
        ],
    ),
    ("varchar(3)[]", &[("{ab}", Text("[\"ab\"]"))]),
    ("char(3)[]", &[("{ab}", Text("[\"ab \"]"))]),
    (
        "uuid[]",
        &[("{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", Text("[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]"))],
    ),
    ("mood[]", &[("{sad,\"very, happy\"}", Text("[\"sad\",\"very, happy\"]"))]),
    ("date[]", &[("{infinity,1970-01-02}", Text("[null,86400000]"))]),
    ("timestamp[]", &[("{\"1970-01-01 00:00:00.0015\"}", Text("[1.5]"))]),
    ("timestamptz[]", &[("{\"2000-01-01 05:30:00+05:30\"}", Text("[946684800000]"))]),
    ("time[]", &[("{24:00:00}", Text("[86400000]"))]),
    ("timetz[]", &[("{00:30:00+01}", Text("[84600000]"))]),
    ("json[]", &[("{\"{\\\"a\\\": 1}\",2}", Text("[{\"a\": 1},2]"))]),
    ("jsonb[]", &[("{\"{\\\"b\\\":1}\"}", Text("[{\"b\": 1}]"))]),
    ("bytea[]", &[("{\"\\\\x00ff\"}", Text("[\"\\\\x00ff\"]"))]),
    ("box[]", &[("{(3,4),(1,2);(1,1),(0,0)}", Text("[\"(3,4),(1,2)\",\"(1,1),(0,0)\"]"))]),
    ("frame[]", &[("{(3,4),(1,2);NULL}", Text("[\"(3,4),(1,2)\",null]"))]),
    (
        "piped[]",
        &[
            ("{a,b|\"c|d\"|NULL|\"NULL\"|\"{}x\"}", Text("[\"a,b\",\"c|d\",null,\"NULL\",\"{}x\"]")),
            ("[0:1][1:2]={{1|2}|{\"3,\\\"}\"|\"\"}}", Text("[[\"1\",\"2\"],[\"3,\\\"}\",\"\"]]")),
            ("{}", Text("[]")),
        ],
    ),
    ("int4range[]", &[("{\"[1,5)\"}", Text("[\"[1,5)\"]"))]),
];

/// Types that [`random`] knows.
pub const RANDOM: &[&str] = &[
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "bool",
    "text",
    "char(7)",
    "uuid",
    "inet",
    "cidr",
    "mood",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "timetz",
    "json",
    "jsonb",
    "bytea",
    "interval",
    "int8[]",
    "float4[]",
    "float8[]",
    "numeric[]",
    "text[]",
    "bool[]",
    "date[]",
    "timestamp[]",
    "timetz[]",
    "jsonb[]",
    "mood[]",
];

/// A random value as an SQL literal.
pub fn random(ty: &str, random: &mut Random) -> String {
    if let Some(element) = ty.strip_suffix("[]") {
        return array(element, random);
    }
    scalar(ty, random)
}

fn array(element: &str, random: &mut Random) -> String {
    let list = |random: &mut Random, n: u64| {
        let items: Vec<String> =
            (0..n).map(|_| if random.chance(6) { "NULL".into() } else { scalar(element, random) }).collect();
        format!("ARRAY[{}]::{element}[]", items.join(", "))
    };
    if random.chance(3) {
        let width = 1 + random.below(3);
        let rows: Vec<String> = (0..1 + random.below(3)).map(|_| list(random, width)).collect();
        return format!("ARRAY[{}]", rows.join(", "));
    }
    let n = random.below(5);
    list(random, n)
}

fn scalar(ty: &str, random: &mut Random) -> String {
    let text = match ty {
        "int2" => (random.next() as i16).to_string(),
        "int4" => (random.next() as i32).to_string(),
        "int8" => (random.next() as i64 >> random.below(64)).to_string(),
        "float4" => float(f64::from(f32::from_bits(random.next() as u32)), random),
        "float8" => float(f64::from_bits(random.next()), random),
        "numeric" => {
            let digits = |random: &mut Random, most: u64| -> String {
                (0..random.below(most)).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
            };
            let sign = *random.one_of(&["", "-"]);
            format!("{sign}0{}.{}", digits(random, 40), digits(random, 20))
        }
        "bool" => random.chance(2).to_string(),
        "text" => characters(random, 20),
        "char(7)" => characters(random, 7),
        "uuid" => format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            random.next() as u32,
            random.next() as u16,
            random.next() as u16,
            random.next() as u16,
            random.next() & 0xffff_ffff_ffff
        ),
        "inet" if random.chance(2) => format!("2001:db8::{:x}/{}", random.next() as u16, random.below(129)),
        "inet" => {
            let [a, b] = [random.below(256), random.below(256)];
            format!("10.{a}.{b}.1/{}", random.below(33))
        }
        "cidr" => format!("{}.0.0.0/8", random.below(256)),
        "mood" => (*random.one_of(&["sad", "it's \"ok\"", "very, happy"])).into(),
        "date" => day(random),
        "timestamp" => moment(random, ""),
        "timestamptz" => {
            let zone = zone(random);
            moment(random, &zone)
        }
        "time" => clock(random),
        "timetz" => format!("{}{}", clock(random), zone(random)),
        "json" | "jsonb" => {
            let inner = serde_json::Value::from(characters(random, 10)).to_string();
            let number = random.between(-1_000_000, 1_000_000).to_string();
            match random.below(4) {
                0 => number,
                1 => inner,
                2 => format!("[{number} ,{inner}, null, true]"),
                _ => format!("{{\"b\":{inner} , \"a\": {{\"x\":{number}}}}}"),
            }
        }
        "bytea" => {
            let n = random.below(20);
            format!("\\x{}", (0..n).map(|_| format!("{:02x}", random.next() as u8)).collect::<String>())
        }
        "interval" => format!("{} months {} seconds", random.between(-50, 50), random.between(-90000, 90000)),
        other => panic!("no random values of {other}"),
    };
    format!("{}::{ty}", literal(&text))
}

fn float(n: f64, random: &mut Random) -> String {
    match random.below(8) {
        0 => (*random.one_of(&["NaN", "Infinity", "-Infinity", "-0", "0"])).into(),
        1 => random.between(-100_000, 100_000).to_string(),
        2 => (random.between(-100_000, 100_000) as f64 / 1000.0).to_string(),
        // A denormal of the smaller type may be refused as out of range.
        _ if n.is_finite() && (n == 0.0 || n.abs() > 1e-37) => format!("{n:e}"),
        _ => "1".into(),
    }
}

fn characters(random: &mut Random, most: u64) -> String {
    const SOME: &[char] = &[
        'a',
        'Z',
        '0',
        ' ',
        '\t',
        '\n',
        '\r',
        '\\',
        '\'',
        '"',
        ',',
        '{',
        '}',
        'N',
        '\u{e9}',
        '\u{1f600}',
        '\u{1}',
        '\u{7f}',
    ];
    (0..random.below(most + 1)).map(|_| *random.one_of(SOME)).collect()
}

fn year(random: &mut Random) -> (i64, &'static str) {
    match random.below(5) {
        0 => (random.between(1, 4712), " BC"),
        1 => (random.between(10_000, 294_000), ""),
        2 => (random.between(1, 1000), ""),
        _ => (random.between(1900, 2100), ""),
    }
}

fn day(random: &mut Random) -> String {
    if random.chance(12) {
        return (*random.one_of(&["infinity", "-infinity"])).into();
    }
    let (year, era) = year(random);
    format!("{year:04}-{:02}-{:02}{era}", random.between(1, 13), random.between(1, 29))
}

fn moment(random: &mut Random, zone: &str) -> String {
    if random.chance(12) {
        return (*random.one_of(&["infinity", "-infinity"])).into();
    }
    let (year, era) = year(random);
    let (month, day) = (random.between(1, 13), random.between(1, 29));
    format!("{year:04}-{month:02}-{day:02} {}{zone}{era}", clock(random))
}

fn clock(random: &mut Random) -> String {
    let (h, m, s) = (random.below(24), random.below(60), random.below(60));
    match random.below(4) {
        0 => format!("{h:02}:{m:02}:{s:02}"),
        1 => format!("{h:02}:{m:02}:{s:02}.{:03}", random.below(1000)),
        _ => format!("{h:02}:{m:02}:{s:02}.{:06}", random.below(1_000_000)),
    }
}

fn zone(random: &mut Random) -> String {
    let sign = *random.one_of(&["+", "-"]);
    match random.below(3) {
        0 => format!("{sign}{:02}", random.below(15)),
        1 => format!("{sign}{:02}:{:02}", random.below(15), random.below(60)),
        _ => format!("{sign}{:02}:{:02}:{:02}", random.below(15), random.below(60), random.below(60)),
    }
}
