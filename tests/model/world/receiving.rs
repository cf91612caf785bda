//! What the tabs of a world are sent.

use bytes::Bytes;
use kelvin::protocol::websocket::payload_of;
use serde_json::Value;

use super::{Broken, World};
use crate::model::client::Store;
use crate::model::socket::Came;

/// What an error is, if a frame is one.
fn error_kind(frame: &Bytes) -> Option<String> {
    let payload = payload_of(frame);
    if !payload.starts_with(b"[\"error\"") {
        return None;
    }
    let message: Value = serde_json::from_slice(payload).expect("JSON");
    Some(message[1]["kind"].as_str().expect("a kind").to_owned())
}

impl World {
    /// A tab reads up to `count` messages.
    pub fn receive(&mut self, number: usize, place: usize, count: usize) -> Result<(), Broken> {
        self.observe();
        let Some(line) = self.groups[number].tabs[place].line.clone() else { return Ok(()) };
        self.core.write(&line);
        let group = &mut self.groups[number];
        let tab = &mut group.tabs[place];
        for came in std::iter::from_fn(|| line.socket.next()).take(count) {
            let Came::Frame(frame) = came else {
                // It comes back by itself.
                self.disconnect(number, place);
                return Ok(());
            };
            if let Some(kind) = error_kind(&frame) {
                if tab.receiver.awaits_connected {
                    return Err(format!("{} was told {kind} before connected", tab.client));
                }
                return self.told(number, place, &kind);
            }
            let moved = tab.receiver.take(&frame).map_err(|e| format!("{}: {e}", tab.client))?;
            if !moved {
                continue;
            }
            let store = tab.receiver.store.clone();
            if let Some(watch) = &mut self.watch {
                let which = number % self.scenario.believed.len();
                let looked = watch.check(&group.id, which, &store);
                looked.map_err(|e| format!("{} at {:?}: {e}", tab.client, store.cookie))?;
            }
            self.log.push(format!("{} is at {:?}", tab.client, store.cookie));
            let cookie = store.cookie.clone().expect("it moved");
            let expected = group.history.entry(cookie).or_insert_with(|| store.clone());
            if *expected != store {
                return Err(format!("{} differs from others at {}", tab.client, store.difference(expected)));
            }
        }
        Ok(())
    }

    /// A tab is told an error: its connection is over.
    fn told(&mut self, number: usize, place: usize, kind: &str) -> Result<(), Broken> {
        let base = self.groups[number].tabs[place].receiver.store.cookie.clone();
        self.log.push(format!("{} is told {kind}", self.groups[number].tabs[place].client));
        self.disconnect(number, place);
        let is_expected = match kind {
            // A group that is not known, and a cookie that nobody issued: such a client deletes what it has.
            "ClientNotFound" | "InvalidConnectionRequestBaseCookie" => {
                self.groups[number].tabs[place].receiver.store = Store::default();
                self.resets += usize::from(base.is_some());
                base.is_some()
            }
            "TransformFailed" | "PushFailed" => self.failures > 0,
            "ServerOverloaded" => true,
            _ => false,
        };
        match is_expected {
            true => Ok(()),
            false => Err(format!("refused: {kind}")),
        }
    }
}
