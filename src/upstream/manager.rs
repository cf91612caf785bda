//! The replication manager: connects, checks, syncs or resumes, and has an [`Engine`] follow upstream.
//!
//! [`run`] runs on one executor until it is told to stop or cannot go on. Everything that
//! blocks (SQLite, the disk) is on the replica's threads; everything that the rest of the
//! server must know goes through [`Events`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{self, Either};
use kelvin_io::channel::Receiver;
use kelvin_io::executor;

use super::settings::Settings;
use super::shard::Shard;
use super::source::Postgres;
use super::start::{self, Ready};
use crate::model::logging::Level;
use crate::replica::engine::{self, Engine, FIRST_PAUSE, LONGEST_PAUSE};
use crate::replica::events::Events;
use crate::replica::gauges::Gauges;
use crate::replica::verdict::{EXIT_CONFIGURATION, End, Failure};

/// Replicates until `stop` gets a message (or is closed), or nothing more can be done.
pub async fn run(settings: Settings, events: Rc<dyn Events>, stop: Receiver<()>) -> End {
    let end = replicate(settings, events, stop).await;
    kelvin_io::postgres::until_closed().await;
    end
}

async fn replicate(settings: Settings, events: Rc<dyn Events>, stop: Receiver<()>) -> End {
    let shard = match Shard::new(&settings.app_id, settings.shard, &settings.publications) {
        Ok(shard) => Rc::new(shard),
        Err(e) => return Failure::from(e).into(),
    };
    let settings = Rc::new(settings);
    let gauges = Arc::new(Gauges::default());
    events.gauges(gauges.clone());
    let ready = {
        let starting = std::pin::pin!(begin(&settings, &shard, &events, &gauges));
        match future::select(std::pin::pin!(stop.recv()), starting).await {
            Either::Left(_) => return End::Stopped,
            Either::Right((ready, _)) => ready,
        }
    };
    let ready = match ready {
        Ok(ready) => ready,
        Err(end) => return end,
    };
    let of_engine = engine::Settings {
        file: settings.replica_file.clone(),
        auto_reset: settings.auto_reset,
        log_limits: settings.log_limits,
        row_limit: settings.row_limit,
    };
    let started =
        Engine::start(of_engine, events.clone(), gauges.clone(), &ready.metadata, ready.epoch).await;
    match started {
        Ok(engine) => engine.follow(Postgres::new(settings, shard, events, gauges, ready), stop).await,
        Err(e) => Failure::Replica(e).into(),
    }
}

/// Prepares the replica; tries again while Postgres is away, for the time that is set.
async fn begin(
    settings: &Rc<Settings>,
    shard: &Rc<Shard>,
    events: &Rc<dyn Events>,
    gauges: &Gauges,
) -> Result<Ready, End> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match start::run(settings, shard, events, gauges).await {
            Ok(ready) => return Ok(ready),
            Err(start::Failure::Halted(message)) => {
                return Err(End::Failed { message, exit_code: EXIT_CONFIGURATION });
            }
            Err(start::Failure::Error(error)) => error,
        };
        if !error.is_transient() {
            return Err(Failure::from(error).into());
        }
        if started.elapsed() + pause > settings.connect_timeout {
            let message = format!(
                "the upstream database could not be reached for {:?}: {error}. Check ZERO_UPSTREAM_DB and \
                 that Postgres runs",
                settings.connect_timeout
            );
            return Err(End::Failed { message, exit_code: EXIT_CONFIGURATION });
        }
        events.progress(&format!("waiting for the upstream database: {error}"));
        events.log(
            Level::Warn,
            "the upstream database is not available; trying again",
            &[("error", error.to_string())],
        );
        executor::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
