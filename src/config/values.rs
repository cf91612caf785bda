//! Second stage: the texts of the first as values of the options' types, and what is to be said of them.

use std::collections::HashMap;

use super::error::{ConfigError, shown};
use super::option::{Opt, Status, Visibility};
use super::raw::Raw;
use super::table;
use super::value::{self, Value};

/// The values of all options, and what start-up should log.
#[derive(Debug)]
pub struct Values {
    raw: Raw,
    typed: HashMap<&'static str, Value>,
    /// For level warn.
    pub warnings: Vec<String>,
    /// For level info.
    pub notes: Vec<String>,
    /// For level debug.
    pub debug: Vec<String>,
}

/// Reads every given value. A bad one is an error, unless the option has no effect anyway.
pub fn check(mut raw: Raw) -> Result<Values, ConfigError> {
    let mut values = Values {
        warnings: std::mem::take(&mut raw.warnings),
        notes: Vec::new(),
        debug: std::mem::take(&mut raw.debug),
        typed: HashMap::new(),
        raw,
    };
    for opt in table::all() {
        let Some(given) = values.raw.given.get(opt.path) else { continue };
        match value::read(opt, &given.words) {
            Ok(value) => drop(values.typed.insert(opt.path, value)),
            Err(problem) => {
                let text = shown(&given.words.join(" "), opt.secret);
                let error = ConfigError::bad(&given.name(opt), &text, &problem.what, &problem.remedy);
                values.fail(opt, error)?;
            }
        }
    }
    values.say_what_has_no_effect();
    values.say_what_is_deprecated();
    Ok(values)
}

impl Values {
    /// The value that the user gave.
    pub fn given(&self, opt: &Opt) -> Option<&Value> {
        self.typed.get(opt.path)
    }

    /// A variable that is no option; never empty.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.raw.env.get(name).map(String::as_str)
    }

    /// The setting as the user wrote it.
    pub fn name(&self, opt: &Opt) -> String {
        self.raw.given.get(opt.path).map_or_else(|| opt.env(), |given| given.name(opt))
    }

    /// The error that `value`, given for `opt`, cannot be used.
    pub fn bad(&self, opt: &Opt, value: &str, problem: &str, remedy: &str) -> ConfigError {
        ConfigError::bad(&self.name(opt), &shown(value, opt.secret), problem, remedy)
    }

    /// Ends start-up with `error`, or only warns when the option has no effect.
    pub fn fail(&mut self, opt: &Opt, error: ConfigError) -> Result<(), ConfigError> {
        match opt.status {
            Status::Used => Err(error),
            _ => {
                self.warnings.push(format!("{error} The value is ignored."));
                Ok(())
            }
        }
    }

    /// A text, or the default.
    pub fn text(&self, opt: &Opt) -> Option<String> {
        match self.or_default(opt)? {
            Value::Text(text) => Some(text),
            other => wrong_type(opt, &other),
        }
    }

    /// A number, or the default.
    pub fn number(&self, opt: &Opt) -> Option<f64> {
        match self.or_default(opt)? {
            Value::Number(number) => Some(number),
            other => wrong_type(opt, &other),
        }
    }

    /// A whole number, or the default.
    pub fn whole(&self, opt: &Opt) -> Option<i64> {
        match self.or_default(opt)? {
            Value::Whole(number) => Some(number),
            other => wrong_type(opt, &other),
        }
    }

    /// On or off, or the default.
    pub fn boolean(&self, opt: &Opt) -> Option<bool> {
        match self.or_default(opt)? {
            Value::Bool(on) => Some(on),
            other => wrong_type(opt, &other),
        }
    }

    /// A list, or the default.
    pub fn list(&self, opt: &Opt) -> Option<Vec<String>> {
        match self.or_default(opt)? {
            Value::List(items) => Some(items),
            other => wrong_type(opt, &other),
        }
    }

    fn or_default(&self, opt: &Opt) -> Option<Value> {
        self.given(opt).cloned().or_else(|| value::default_of(opt))
    }

    /// One line for each reason, with the names that it concerns: not one line for each name.
    fn say_what_has_no_effect(&mut self) {
        let mut reasons: Vec<(Status, Vec<String>)> = Vec::new();
        for opt in table::all().filter(|opt| opt.status != Status::Used) {
            if !self.is_default(opt) {
                match reasons.iter_mut().find(|(status, _)| *status == opt.status) {
                    Some((_, names)) => names.push(self.name(opt)),
                    None => reasons.push((opt.status, vec![self.name(opt)])),
                }
            }
        }
        for (status, names) in reasons {
            let names = names.join(", ");
            match status {
                Status::Missing(why) => self.warnings.push(format!("No effect yet: {names}: {why}")),
                Status::NotYet(why) => self.notes.push(format!("No effect yet: {names}: {why}")),
                Status::Ignored(why) => self.debug.push(format!("No effect: {names}: {why}")),
                Status::Used => {}
            }
        }
    }

    fn is_default(&self, opt: &Opt) -> bool {
        self.given(opt).is_none_or(|value| value::default_of(opt).as_ref() == Some(value))
    }

    fn say_what_is_deprecated(&mut self) {
        for opt in table::all() {
            if let (Visibility::Deprecated(advice), Some(_)) = (opt.visibility, self.given(opt)) {
                self.warnings.push(format!("{} is deprecated: {advice}", self.name(opt)));
            }
        }
    }
}

/// An option is read as what it is not: a mistake in this program that any test run shows.
fn wrong_type<T>(opt: &Opt, value: &Value) -> Option<T> {
    debug_assert!(false, "{} is {:?}, not {value:?}", opt.path, opt.kind);
    None
}
