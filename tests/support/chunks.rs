//! The chunks of one poke as a client of protocol 52 takes them (`docs/spec/sync-protocol.md` §9.5).

use serde_json::Value;

/// Longest chunk that a client is promised.
const MAX_CHUNK: usize = 1 << 20;

/// What has come of a poke.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    /// The array's text so far. Borders of chunks may stand within a character.
    text: Vec<u8>,
    count: usize,
}

impl Chunks {
    /// Takes a chunk.
    pub fn take(&mut self, chunk: &[u8]) -> Result<(), String> {
        match chunk {
            _ if chunk.len() > MAX_CHUNK => Err(format!("a chunk of {} bytes", chunk.len())),
            [] | [0] => Err("a chunk with nothing in it".to_owned()),
            [0, text @ ..] => {
                self.text.extend(text);
                self.count += 1;
                Ok(())
            }
            [other, ..] => Err(format!("a chunk of type {other}")),
        }
    }

    /// How many have come.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The bodies of the parts, when the poke ends.
    pub fn parts(&self) -> Result<Vec<Value>, String> {
        let text = std::str::from_utf8(&self.text).map_err(|e| e.to_string())?;
        serde_json::from_str(text)
            .map_err(|e| format!("{} chunks are no array: {e}: {text:.200}", self.count))
    }

    /// The poke is cancelled: its array must be left unfinished.
    pub fn cancelled(&self) -> Result<(), String> {
        match self.count > 0 && self.parts().is_ok() {
            true => Err("a poke was finished and then cancelled".to_owned()),
            false => Ok(()),
        }
    }
}
