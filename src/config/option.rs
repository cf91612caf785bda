//! What one option is: its name, type, default, visibility, status and documentation.
//!
//! The table of options (`table/`) is made of these. Everything else that knows about options (the
//! parser, `--help`, `docs/settings.md`, the warnings, the tests) is derived from it.

use std::fmt;

/// The type of an option, and what it accepts (`docs/spec/config-ops.md` §2.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Anything JavaScript's `Number()` takes.
    Number,
    /// A number without a fraction, from `min` to `max` inclusive.
    Whole {
        /// Smallest accepted value.
        min: i64,
        /// Largest accepted value.
        max: i64,
    },
    /// `true`, `false`, `1` or `0`, in any case; a flag without a value is `true`.
    Bool,
    /// Several texts: separated by commas in the environment, by words or repetition as flags.
    List,
    /// One of these words, exactly.
    Choice(&'static [&'static str]),
}

impl Kind {
    /// The placeholder that stands for a value in `--help` and in the docs.
    pub fn placeholder(self) -> String {
        match self {
            Kind::Text => "TEXT".to_owned(),
            Kind::Number | Kind::Whole { .. } => "NUMBER".to_owned(),
            Kind::Bool => "true|false".to_owned(),
            Kind::List => "LIST".to_owned(),
            Kind::Choice(words) => words.join("|"),
        }
    }
}

/// Who is told about an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// In `--help` and in the docs.
    Visible,
    /// In the docs only: rarely of use, or internal to the reference.
    Hidden,
    /// Accepted, with a warning that gives this advice.
    Deprecated(&'static str),
}

/// What Kelvin does with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It acts. A bad value is an error.
    Used,
    /// Accepted without effect yet, for this reason; said in a start-up note when it is set.
    NotYet(&'static str),
    /// As `NotYet`, but somebody who sets it relies on it: said in a start-up warning.
    Missing(&'static str),
    /// Accepted, and never of any effect in Kelvin, for this reason; said at debug level.
    Ignored(&'static str),
}

/// One option. `path` is the group and name, `group.some-name`, from which both names follow.
#[derive(Debug)]
pub struct Opt {
    /// `group.some-name`; unique.
    pub path: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// The default, in the form in which a user would type it.
    pub default: Option<&'static str>,
    /// For a default that is computed: how.
    pub derived: Option<&'static str>,
    /// Start-up fails without it.
    pub required: bool,
    /// Its value is never printed.
    pub secret: bool,
    /// Who is told about it.
    pub visibility: Visibility,
    /// What Kelvin does with it.
    pub status: Status,
    /// One paragraph for the operator.
    pub doc: &'static str,
}

impl Opt {
    const fn new(path: &'static str, kind: Kind) -> Opt {
        Opt {
            path,
            kind,
            default: None,
            derived: None,
            required: false,
            secret: false,
            visibility: Visibility::Visible,
            status: Status::Used,
            doc: "",
        }
    }

    /// The literal default, in the form in which a user would type it.
    pub const fn default(mut self, text: &'static str) -> Opt {
        self.default = Some(text);
        self
    }

    /// How the default is computed.
    pub const fn derived(mut self, how: &'static str) -> Opt {
        self.derived = Some(how);
        self
    }

    /// Start-up fails without it.
    pub const fn required(mut self) -> Opt {
        self.required = true;
        self
    }

    /// Its value is never printed.
    pub const fn secret(mut self) -> Opt {
        self.secret = true;
        self
    }

    /// Not in `--help`.
    pub const fn hidden(mut self) -> Opt {
        self.visibility = Visibility::Hidden;
        self
    }

    /// Not in `--help`, and warned of with this advice when set.
    pub const fn deprecated(mut self, advice: &'static str) -> Opt {
        self.visibility = Visibility::Deprecated(advice);
        self
    }

    /// See [`Status::NotYet`].
    pub const fn not_yet(mut self, reason: &'static str) -> Opt {
        self.status = Status::NotYet(reason);
        self
    }

    /// See [`Status::Missing`].
    pub const fn missing(mut self, reason: &'static str) -> Opt {
        self.status = Status::Missing(reason);
        self
    }

    /// See [`Status::Ignored`].
    pub const fn ignored(mut self, reason: &'static str) -> Opt {
        self.status = Status::Ignored(reason);
        self
    }

    /// One paragraph for the operator.
    pub const fn doc(mut self, text: &'static str) -> Opt {
        self.doc = text;
        self
    }

    /// The flag: `--group-some-name`.
    pub fn flag(&self) -> String {
        format!("--{}", self.path.replace('.', "-"))
    }

    /// The environment variable: `ZERO_GROUP_SOME_NAME`.
    pub fn env(&self) -> String {
        format!("ZERO_{}", self.path.replace(['.', '-'], "_").to_ascii_uppercase())
    }

    /// The default as `--help` and the docs print it.
    pub fn default_text(&self) -> String {
        match (self.required, self.default, self.derived) {
            (true, ..) => "required".to_owned(),
            (_, Some(text), _) => format!("default: {text}"),
            (_, None, Some(how)) => format!("default: {how}"),
            (_, None, None) => "default: unset".to_owned(),
        }
    }

    /// What the docs add about the status; `None` for an option that simply acts.
    pub fn status_text(&self) -> Option<String> {
        match self.status {
            Status::Used => None,
            Status::NotYet(reason) | Status::Missing(reason) => {
                Some(format!("Accepted; no effect yet: {reason}"))
            }
            Status::Ignored(reason) => Some(format!("Accepted and ignored: {reason}")),
        }
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.env(), self.flag())
    }
}

/// An option that takes any text.
pub const fn text(path: &'static str) -> Opt {
    Opt::new(path, Kind::Text)
}

/// An option that takes a number.
pub const fn number(path: &'static str) -> Opt {
    Opt::new(path, Kind::Number)
}

/// An option that takes a number without a fraction, from `min` to `max` inclusive.
pub const fn whole(path: &'static str, min: i64, max: i64) -> Opt {
    Opt::new(path, Kind::Whole { min, max })
}

/// An option that is on or off.
pub const fn boolean(path: &'static str) -> Opt {
    Opt::new(path, Kind::Bool)
}

/// An option that takes several texts.
pub const fn list(path: &'static str) -> Opt {
    Opt::new(path, Kind::List)
}

/// An option that takes one of these words.
pub const fn choice(path: &'static str, words: &'static [&'static str]) -> Opt {
    Opt::new(path, Kind::Choice(words))
}
