//! First stage: what the user gave for each option, and where, without looking at types' contents.
//!
//! Precedence: flag, then environment, then `.env` (`docs/spec/config-ops.md` §2.1). An empty value
//! counts as not given. Arrays replace each other, they are never merged.

use std::collections::HashMap;

use super::dotenv;
use super::environment::{KNOWN, is_service_link};
use super::error::ConfigError;
use super::nearest::nearest;
use super::option::{Kind, Opt};
use super::table;
use super::value::split_commas;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// A variable of the process.
    Env,
    /// A line of `.env`.
    DotEnv,
}

/// What the user gave for one option.
#[derive(Clone, Debug)]
pub struct Given {
    /// One text; several for a list.
    pub words: Vec<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl Given {
    /// The setting as the user wrote it.
    pub fn name(&self, opt: &Opt) -> String {
        match self.origin {
            Origin::Flag => opt.flag(),
            Origin::Env => opt.env(),
            Origin::DotEnv => format!("{} (in .env)", opt.env()),
        }
    }
}

/// Everything that the user gave.
#[derive(Debug, Default)]
pub struct Raw {
    /// By path of the option.
    pub given: HashMap<&'static str, Given>,
    /// The environment with the lines of `.env` below it; empty values are left out.
    pub env: HashMap<String, String>,
    /// Things to tell the user.
    pub warnings: Vec<String>,
    /// Things to tell somebody who looks closely.
    pub debug: Vec<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// `--help` or `-h`.
    Help,
    /// `--version` or `-V`.
    Version,
    /// To run.
    Run(Raw),
}

/// Collects the arguments (without the program's name), the environment and the text of `.env`.
pub fn collect(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
    dotenv_text: Option<&str>,
) -> Result<Request, ConfigError> {
    let mut raw = Raw::default();
    let args: Vec<String> = args.into_iter().collect();
    // Asking for help must work whatever else is on the line.
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(Request::Help);
    }
    if args.iter().any(|arg| arg == "--version" || arg == "-V") {
        return Ok(Request::Version);
    }
    flags(&args, &mut raw.given)?;

    raw.env = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let file = dotenv::parse(dotenv_text.unwrap_or_default(), &raw.env);
    for line in file.bad_lines {
        raw.warnings.push(format!("Line {line} of .env is not NAME=value and is ignored."));
    }
    let from_file: HashMap<String, String> = file
        .values
        .into_iter()
        .filter(|(name, value)| !value.is_empty() && !raw.env.contains_key(name))
        .collect();
    variables(&from_file, Origin::DotEnv, &mut raw);
    variables(&raw.env.clone(), Origin::Env, &mut raw);
    raw.env.extend(from_file);
    Ok(Request::Run(raw))
}

/// Reads `--name value`, `--name=value`, `--boolean`, and `--list a b --list c`.
fn flags(args: &[String], given: &mut HashMap<&'static str, Given>) -> Result<(), ConfigError> {
    let known: HashMap<String, &'static Opt> = table::all().map(|opt| (opt.flag(), opt)).collect();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let opt = *known.get(name).ok_or_else(|| unknown_flag(name))?;
        let is_list = opt.kind == Kind::List;
        let mut words: Vec<String> = attached.into_iter().collect();
        // A word that starts with two dashes is the next flag; as a value it needs the form with `=`.
        while words.is_empty() || (is_list && !arg.contains('=')) {
            match args.next_if(|next| !next.starts_with("--")) {
                Some(word) => words.push(word.clone()),
                None => break,
            }
        }
        if words.is_empty() {
            match opt.kind {
                Kind::Bool => words.push("true".to_owned()),
                _ => return Err(needs_value(opt)),
            }
        }
        if words.iter().all(String::is_empty) {
            continue;
        }
        match given.get_mut(opt.path) {
            Some(earlier) if is_list => earlier.words.extend(words),
            Some(_) => return Err(given_twice(opt)),
            None => drop(given.insert(opt.path, Given { words, origin: Origin::Flag })),
        }
    }
    Ok(())
}

fn unknown_flag(name: &str) -> ConfigError {
    let flags: Vec<String> = table::all().map(Opt::flag).collect();
    let hint = match nearest(name, flags.iter().map(String::as_str)) {
        Some(flag) => format!("Did you mean {flag}?"),
        None => "See --help for the options.".to_owned(),
    };
    let kind = if name.starts_with('-') { "option" } else { "argument" };
    ConfigError::plain(name, format!("Unknown {kind} {name}. {hint}"))
}

fn needs_value(opt: &Opt) -> ConfigError {
    let flag = opt.flag();
    let message = format!("{flag} needs a value: {flag} {}.", opt.kind.placeholder());
    ConfigError::plain(&flag, message)
}

fn given_twice(opt: &Opt) -> ConfigError {
    let flag = opt.flag();
    let message = format!("{flag} is given twice. It takes one value: remove one of them.");
    ConfigError::plain(&flag, message)
}

/// Takes the `ZERO_*` variables that no earlier source gave. Environment after `.env` is fine, as
/// `.env` was relieved of the names that the environment has.
fn variables(env: &HashMap<String, String>, origin: Origin, raw: &mut Raw) {
    let known: HashMap<String, &'static Opt> = table::all().map(|opt| (opt.env(), opt)).collect();
    let mut names: Vec<&String> = env.keys().filter(|name| name.starts_with("ZERO_")).collect();
    names.sort();
    for name in names {
        let value = &env[name];
        match known.get(name) {
            Some(opt) => {
                let words = match opt.kind {
                    Kind::List => split_commas(value),
                    _ => vec![value.clone()],
                };
                raw.given.entry(opt.path).or_insert(Given { words, origin });
            }
            None if KNOWN.iter().any(|(tolerated, _)| tolerated == name) => {}
            None if is_service_link(name) => {
                raw.debug.push(format!("{name} looks like a Kubernetes service link and is ignored."));
            }
            None => raw.warnings.push(unknown_variable(name, known.keys())),
        }
    }
}

fn unknown_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    // The prefix would make all names look alike.
    let known: Vec<&str> = known.filter_map(|known| known.strip_prefix("ZERO_")).collect();
    let own = name.strip_prefix("ZERO_").unwrap_or(name);
    match nearest(own, known.into_iter()) {
        Some(meant) => format!("{name} is not a known setting and is ignored. Did you mean ZERO_{meant}?"),
        None => format!("{name} is not a known setting and is ignored."),
    }
}
