//! The only place that reads this process's arguments, environment and `.env` file.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::{env, fs, io, thread};

use super::{ConfigError, Facts, Outcome, parse};

/// [`parse`] with what this process was started with. `args` are those of `env::args_os`, without the
/// program's name and without a subcommand.
pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Outcome, ConfigError> {
    let facts = Facts {
        // Counts limits of the container and the affinity of the process.
        cores: thread::available_parallelism().map_or(1, usize::from),
        random_id: random_id(),
    };
    let vars = env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    let dotenv = dotenv_text()?;
    parse(args.into_iter().map(lossy), vars, dotenv.as_deref(), &facts)
}

fn dotenv_text() -> Result<Option<String>, ConfigError> {
    match fs::read(".env") {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A directory of that name (Python's virtual environments) is not meant for us.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) => {
            let message = format!(".env cannot be read: {error}. Make it readable, or move it away.");
            Err(ConfigError::plain(".env", message))
        }
    }
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// 22 characters from the seeds that the standard library takes from the system.
fn random_id() -> String {
    let seed = || RandomState::new().hash_one(0u8);
    base36(seed()) + &base36(seed().rotate_left(32))
}

fn base36(mut number: u64) -> String {
    let mut text = String::new();
    for _ in 0..11 {
        text.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
    }
    text
}
