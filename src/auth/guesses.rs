//! How often the administrator's password may be guessed.
//!
//! Counted by the address that asks. Whoever has guessed too often is told so, and what he guesses is not looked
//! at, right or wrong. Time is given: nothing here reads a clock.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Wrong passwords of one address at once: a person who mistypes, or a page that asks with an old one.
pub const MAX_WRONG: u32 = 10;

/// Time after which an address may guess once more. Ten in a minute: a password of eight random characters takes
/// millions of years.
pub const AGAIN_AFTER: Duration = Duration::from_secs(6);

/// Addresses that are known at a time. Those beyond share one count: a network of many addresses must neither fill
/// the memory nor push out what is known of others.
const MAX_ADDRESSES: usize = 4_096;

/// Time between lines of the log about wrong passwords: whoever guesses must not fill it.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Wrong passwords of one address.
#[derive(Debug, Clone, Copy)]
struct Wrong {
    count: u32,
    /// Since when the count falls.
    since: Instant,
}

impl Wrong {
    /// How many count at `now`: one less after each pause.
    fn left(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.since).as_secs() / AGAIN_AFTER.as_secs();
        self.count.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX))
    }
}

/// Wrong passwords, by address.
#[derive(Debug, Default)]
pub struct Guesses {
    by_address: HashMap<IpAddr, Wrong>,
    others: Option<Wrong>,
    said_at: Option<Instant>,
    unsaid: u64,
}

/// One household or server: of an IPv6 address the network, which one peer has all addresses of.
fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

impl Guesses {
    /// Whether a password that this address gives is looked at.
    pub fn may_guess(&self, address: IpAddr, now: Instant) -> bool {
        let address = party(address);
        let wrong = match self.by_address.get(&address) {
            Some(wrong) => Some(wrong),
            None if self.by_address.len() < MAX_ADDRESSES => None,
            None => self.others.as_ref(),
        };
        wrong.is_none_or(|wrong| wrong.left(now) < MAX_WRONG)
    }

    /// A guess was wrong, or was not looked at (`counts`: false). Returns how many there were since the log was told of
    /// some, if it is time to tell it again.
    pub fn wrong(&mut self, address: IpAddr, now: Instant, counts: bool) -> Option<u64> {
        let address = party(address);
        if counts {
            if self.by_address.len() >= MAX_ADDRESSES && !self.by_address.contains_key(&address) {
                self.by_address.retain(|_, wrong| wrong.left(now) > 0);
            }
            let is_known = self.by_address.len() < MAX_ADDRESSES || self.by_address.contains_key(&address);
            let fresh = Wrong { count: 0, since: now };
            let wrong = match is_known {
                true => self.by_address.entry(address).or_insert(fresh),
                false => self.others.get_or_insert(fresh),
            };
            *wrong = Wrong { count: wrong.left(now) + 1, since: now };
        }
        self.unsaid += 1;
        if self.said_at.is_some_and(|at| now.saturating_duration_since(at) < SAY_EVERY) {
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Guesses that are looked at until there are too many.
    fn guess(guesses: &mut Guesses, address: IpAddr, now: Instant) -> u32 {
        let mut count = 0;
        while guesses.may_guess(address, now) {
            let _ = guesses.wrong(address, now, true);
            count += 1;
        }
        count
    }

    #[test]
    fn an_address_guesses_ten_times_and_then_ten_times_a_minute() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        assert_eq!(guess(&mut guesses, v4(1), now), MAX_WRONG);
        assert_eq!(guess(&mut guesses, v4(2), now), MAX_WRONG, "others are not held back");
        let minute = now + Duration::from_secs(60);
        assert_eq!(guess(&mut guesses, v4(1), minute - Duration::from_millis(1)), 9);
        assert_eq!(guess(&mut guesses, v4(2), minute), 10);
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped());
        assert!(!guesses.may_guess(mapped, minute), "however it is spelled");
    }

    #[test]
    fn a_network_is_one_party_and_many_of_them_share_a_count() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        let of =
            |network: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, network, 0, 0, 0, host));
        assert_eq!(guess(&mut guesses, of(0, 1), now), MAX_WRONG);
        assert!(!guesses.may_guess(of(0, 2), now));
        let mut looked_at = 0;
        for network in 1..10_000 {
            looked_at += guess(&mut guesses, of(network, 1), now);
        }
        assert_eq!(looked_at, MAX_WRONG * MAX_ADDRESSES as u32);
        assert_eq!(guesses.by_address.len(), MAX_ADDRESSES);
        assert!(!guesses.may_guess(of(0, 1), now), "it is not forgotten for others");
        let later = now + Duration::from_secs(61);
        assert!(guesses.may_guess(of(20_000, 1), later));
        let _ = guesses.wrong(of(20_000, 1), later, true);
        assert_eq!(guesses.by_address.len(), 1);
    }

    #[test]
    fn the_log_is_told_once_in_a_while() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        assert_eq!(guesses.wrong(v4(1), now, true), Some(1));
        assert!((0..100).all(|_| guesses.wrong(v4(1), now, false).is_none()));
        assert_eq!(guesses.wrong(v4(2), now + SAY_EVERY, true), Some(101));
    }
}
