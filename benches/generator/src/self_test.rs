//! `bench self-test`: what it costs the generator to receive a poke.

use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::error::BenchError;
use super::handshake::Target;
use super::message::Search;
use super::meter::thread_cpu_s;
use super::null_server::NullServer;
use super::swarm::Swarm;

/// Flags of `bench self-test`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "clients", value: "N", default: Some("1000"), help: "sockets" },
    Flag { name: "rate", value: "N", default: Some("100"), help: "pokes per second and socket" },
    Flag { name: "seconds", value: "S", default: Some("5"), help: "how long" },
];

/// Most that receiving may cost, in microseconds of CPU per poke: above it the generator,
/// not the server, decides what two cores can do.
const GOAL_US: f64 = 5.0;

/// Runs `bench self-test`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let clients: usize = args.number("clients")?;
    let rate: f64 = args.number("rate")?;
    let seconds: f64 = args.number("seconds")?;
    let rounds = ((rate * seconds) as u64).max(1);
    let cost = measure(clients, rounds, rate, Duration::from_secs_f64(seconds * 3.0 + 30.0))?;
    println!("{clients} clients, {rate}/s: {cost:.2} us CPU per received poke (goal: at most {GOAL_US})");
    if cost > GOAL_US { Err(BenchError::Failed("the generator is too slow".to_owned())) } else { Ok(()) }
}

/// CPU time per received poke of the receiving thread, in microseconds.
fn measure(clients: usize, rounds: u64, rate: f64, limit: Duration) -> Result<f64, BenchError> {
    let deadline = Instant::now() + limit;
    let server = NullServer::bind()?;
    let target = Target::parse(&format!("ws://{}", server.address()?))?;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(clients, rounds, rate));
        let mut swarm = Swarm::new(Search::Marker)?;
        for _ in 0..clients {
            swarm.add(&target, &[])?;
        }
        let before = thread_cpu_s();
        // Markers are counted, not pokes: this checks the search as well.
        let mut seen = 0;
        while seen < rounds * clients as u64 {
            if Instant::now() >= deadline {
                return Err(BenchError::NotFinished(format!("{seen} pokes of {}", rounds * clients as u64)));
            }
            swarm.turn(deadline, &mut |client, poke, _| {
                if poke.marker == client.seen + 1 {
                    client.seen = poke.marker;
                    seen += 1;
                }
            })?;
        }
        let cpu_s = thread_cpu_s() - before;
        drop(serving.join().map_err(|_| BenchError::Failed("the null server panicked".to_owned()))??);
        Ok(cpu_s * 1e6 / seen as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_poke_of_the_null_server_is_received() {
        assert!(measure(20, 10, 200.0, Duration::from_secs(20)).unwrap() > 0.0);
    }
}
