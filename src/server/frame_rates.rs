//! How fast the frames of one connection are taken, and when its reader lets others run.

use kelvin_io::websocket::Message;

use super::rate::Rate;

/// What is taken of one connection in a second, after a burst of twice and four times as much. A
/// page sends a few messages a second; five thousand are some percent of a core.
const MESSAGES_PER_SECOND: f64 = 5_000.0;
const BYTES_PER_SECOND: f64 = (16 << 20) as f64;

/// Frames of any kind that are taken in a second, after a burst of as much. Pongs and parts of messages cost less
/// than messages: a proxy may send a large one in parts of a kilobyte, sixteen thousand of them at the rate of the bytes.
const FRAMES_PER_SECOND: f64 = 20_000.0;

/// Frames that are taken one after the other before others run: to read one takes a tenth of a microsecond, to answer
/// a ping some microseconds.
const MAX_IN_A_ROW: u32 = 32;

/// What the reader does before it takes the next frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pause {
    /// Goes on.
    None,
    /// Lets others run.
    Yield,
    /// Waits for so many milliseconds: too much came.
    Wait(f64),
}

/// The rates of one connection.
pub struct FrameRates {
    messages: Rate,
    frames: Rate,
    bytes: Rate,
    in_a_row: u32,
}

impl Default for FrameRates {
    fn default() -> Self {
        FrameRates {
            messages: Rate::new(MESSAGES_PER_SECOND, 2.0 * MESSAGES_PER_SECOND),
            frames: Rate::new(FRAMES_PER_SECOND, FRAMES_PER_SECOND),
            bytes: Rate::new(BYTES_PER_SECOND, 4.0 * BYTES_PER_SECOND),
            in_a_row: 0,
        }
    }
}

impl FrameRates {
    /// Counts a frame that came at `now`, in milliseconds.
    pub fn take(&mut self, frame: &Message, now: f64) -> Pause {
        let (messages, bytes) = match frame {
            Message::Data(bytes) | Message::Ping(bytes) => (1.0, bytes.len()),
            Message::Nothing(bytes) => (0.0, *bytes),
            Message::Close => (0.0, 0),
        };
        let wait = self.messages.take(messages, now);
        let wait = wait.max(self.frames.take(1.0, now)).max(self.bytes.take(bytes as f64, now));
        self.in_a_row += 1;
        let pause = match wait {
            wait if wait > 0.0 => Pause::Wait(wait),
            _ if self.in_a_row >= MAX_IN_A_ROW => Pause::Yield,
            _ => return Pause::None,
        };
        self.in_a_row = 0;
        pause
    }

    /// Counts bytes that are thrown away. Returns how long to wait before the next, in milliseconds.
    pub fn discard(&mut self, bytes: usize, now: f64) -> f64 {
        self.bytes.take(bytes as f64, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames that are taken within so many milliseconds of somebody who sends without an end.
    fn taken(frame: &Message, within: f64) -> f64 {
        let (mut rates, mut now, mut count, mut in_a_row) = (FrameRates::default(), 0.0, 0.0, 0);
        while now < within {
            count += 1.0;
            in_a_row += 1;
            match rates.take(frame, now) {
                Pause::None => assert!(in_a_row < MAX_IN_A_ROW, "others never run"),
                Pause::Yield => in_a_row = 0,
                Pause::Wait(wait) => {
                    in_a_row = 0;
                    now += wait;
                }
            }
        }
        count
    }

    #[test]
    fn frames_that_are_no_messages_are_held_back_too() {
        let second = 1_000.0;
        let most = FRAMES_PER_SECOND * 4.0 + 1.0;
        assert!(taken(&Message::Nothing(0), 3.0 * second) <= most);
        assert!(taken(&Message::Data(Vec::new()), 3.0 * second) <= MESSAGES_PER_SECOND * 5.0 + 1.0);
        let part = 1 << 20;
        assert!(
            taken(&Message::Nothing(part), 3.0 * second) * part as f64
                <= BYTES_PER_SECOND * 7.0 + part as f64
        );
    }

    #[test]
    fn a_large_message_in_small_parts_is_as_fast_as_in_one() {
        let mut rates = FrameRates::default();
        let parts = 10 << 10;
        let waits =
            (0..parts).filter(|_| matches!(rates.take(&Message::Nothing(1 << 10), 0.0), Pause::Wait(_)));
        assert_eq!(waits.count(), 0);
    }
}
