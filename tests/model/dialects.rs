//! What tabs speak: dialects of the protocol side by side.

use kelvin::protocol::dialect::Dialect;

use super::choices::Choices;

/// What the next tab that connects speaks.
#[derive(Default)]
pub struct Dialects {
    /// Draws it; `None`: all are the same.
    choices: Option<Choices>,
    /// In so many of a hundred cases it is the newest.
    newest: usize,
}

impl Dialects {
    /// All speak this one.
    pub fn only(dialect: Dialect) -> Dialects {
        Dialects { choices: None, newest: if dialect == Dialect::Binary { 100 } else { 0 } }
    }

    /// Drawn for each connection; in some runs all are the same.
    pub fn drawn(mut choices: Choices) -> Dialects {
        let newest = *choices.pick(&[50, 0, 100, 30]);
        Dialects { choices: Some(choices), newest }
    }

    /// That of the next connection.
    pub fn next(&mut self) -> Dialect {
        let newest = self.newest;
        let is_newest = match &mut self.choices {
            Some(choices) => choices.percent(newest),
            None => newest > 0,
        };
        if is_newest { Dialect::Binary } else { Dialect::Text }
    }
}
