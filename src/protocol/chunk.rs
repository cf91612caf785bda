//! Binary messages that the parts of a poke are cut into, from protocol 52 on
//! (`docs/spec/sync-protocol.md` §9.5).

use bytes::Bytes;

use super::websocket::{Opcode, frame, payload_of};

/// Longest message in bytes, as the reference.
pub const MAX_CHUNK: usize = 1 << 20;

/// Its first byte; no other is defined.
pub const TYPE: u8 = 0;

/// Most bytes of the array in one message.
pub const MAX_TEXT: usize = MAX_CHUNK - 1;

/// Messages with this piece of the array, all but the last of the longest size.
pub fn chunks(text: &[u8]) -> impl Iterator<Item = Bytes> {
    text.chunks(MAX_TEXT).map(|text| frame(Opcode::Binary, &[&[TYPE], text]))
}

/// The same message with another first byte of text: whether a part is the first of its poke is not known when it
/// is encoded.
pub fn beginning_with(text: u8, chunk: &[u8]) -> Bytes {
    frame(Opcode::Binary, &[&[TYPE, text], &payload_of(chunk)[2..]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_is_longer_than_clients_are_promised() {
        for length in [1, MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1, 3 * MAX_TEXT + 7] {
            let text: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let payloads: Vec<Vec<u8>> = chunks(&text).map(|chunk| payload_of(&chunk).to_vec()).collect();
            assert!(payloads.iter().all(|payload| payload.len() <= 1 << 20 && payload[0] == 0), "{length}");
            assert_eq!(payloads.len(), length.div_ceil((1 << 20) - 1));
            assert_eq!(payloads.iter().flat_map(|payload| &payload[1..]).copied().collect::<Vec<u8>>(), text);
        }
    }

    #[test]
    fn the_first_byte_of_the_text_is_replaced_and_nothing_else() {
        for length in [1, 200, 70_000] {
            let text = vec![b'x'; length];
            let chunk = chunks(&[b",", &text[..]].concat()).next().unwrap();
            let expected = chunks(&[b"[", &text[..]].concat()).next().unwrap();
            assert_eq!(beginning_with(b'[', &chunk), expected);
        }
    }
}
