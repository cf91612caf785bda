//! One connection's stream: from the walsender to the engine's feed, and statuses back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future;
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor;
use kelvin_io::postgres::{Error as PostgresError, Message, Reader, Writer};

use super::acks::Acks;
use super::decode::Decoder;
use super::error::Error;
use super::look::Looker;
use super::schema_change::describe;
use super::stop::Stop;
use crate::model::catalogue::Catalogue;
use crate::model::logging::Level;
use crate::model::version::StateVersion;
use crate::replica::events::Events;
use crate::replica::feed::{Feed, WriterGone};
use crate::replica::gauges::Gauges;
use crate::replica::work::Operations;

/// How often the position of an idle stream is recorded when upstream does not ask for
/// it. Each time is a small transaction of the replica.
const RECORD_IDLE: Duration = Duration::from_secs(1);

/// Decoded ops after which a batch is handed on though more is buffered.
const BATCH_OPS: usize = 2_000;

/// Why a stream ended.
#[derive(Debug)]
pub enum Ended {
    /// The connection, or the server: connect again.
    Lost(PostgresError),
    /// Nothing came for too long: connect again.
    Silent(Duration),
    /// The messages cannot be followed.
    Stopped(Stop),
    /// The schema has changed, for this reason, and could not be looked at.
    Unseen(String, Error),
    /// The writer takes nothing more; it says why itself.
    WriterGone,
}

/// What a stream needs.
pub struct Stream<'f> {
    /// The receiving half.
    pub reader: Reader,
    /// Of this connection.
    pub decoder: Decoder,
    /// Where operations go.
    pub feed: &'f Feed,
    /// Longest silence of the server; `None`: no limit.
    pub inbound_timeout: Option<Duration>,
    /// To ask for a status.
    pub statuses: Statuses,
    /// Where to report.
    pub events: Rc<dyn Events>,
    /// Looks at the schema.
    pub looker: Rc<Looker>,
    /// What the tables are where the stream is.
    pub catalogue: Rc<RefCell<Arc<Catalogue>>>,
    /// To ask for a look at the schema.
    pub hints: Sender<()>,
    /// Where it is said that upstream speaks.
    pub gauges: Arc<Gauges>,
}

impl Stream<'_> {
    /// Reads until the stream ends.
    pub async fn run(mut self) -> Ended {
        let mut recorded = Instant::now();
        loop {
            let arrived = Instant::now();
            loop {
                match self.decode(&mut recorded) {
                    Ok(more) => {
                        if self.hand_on(arrived).await.is_err() {
                            return Ended::WriterGone;
                        }
                        if !more {
                            break;
                        }
                    }
                    Err(ended) => {
                        // What came before is good.
                        if self.hand_on(arrived).await.is_err() {
                            return Ended::WriterGone;
                        }
                        if let Err(ended) = self.go_on(ended).await {
                            return ended;
                        }
                    }
                }
            }
            // Only now: the first messages, or an error after which nothing comes, may have come with the answer to the command.
            let fill = self.reader.fill();
            let filled = match self.inbound_timeout {
                Some(limit) => executor::timeout(limit, fill).await,
                None => Some(fill.await),
            };
            match filled {
                None => return Ended::Silent(self.inbound_timeout.unwrap_or_default()),
                Some(Err(e)) => return Ended::Lost(e),
                Some(Ok(())) => {}
            }
        }
    }

    /// Goes on after what the decoder has stopped for, if that is a look at upstream. Nothing is read meanwhile:
    /// Postgres keeps it, and hears from us.
    async fn go_on(&mut self, ended: Ended) -> Result<(), Ended> {
        let Ended::Stopped(Stop::Look(reason)) = ended else { return Err(ended) };
        self.looker.look_anew().await.map_err(|error| Ended::Unseen(reason, error))?;
        self.decoder.go_on().map_err(Ended::Stopped)
    }

    /// Decodes what is buffered, up to a batch; `true`: there is more.
    fn decode(&mut self, recorded: &mut Instant) -> Result<bool, Ended> {
        let mut count = 0;
        loop {
            match self.reader.buffered().map_err(Ended::Lost)? {
                None => {
                    if count > 0 {
                        self.gauges.lag.heard(None, Instant::now());
                    }
                    return Ok(false);
                }
                Some(Message::End) => return Err(Ended::Lost(PostgresError::Closed)),
                Some(Message::Data { payload }) => {
                    self.decoder.message(payload).map_err(Ended::Stopped)?;
                }
                Some(Message::Keepalive { position, reply }) => {
                    self.gauges.lag.heard(Some(StateVersion(position)), Instant::now());
                    if reply {
                        self.statuses.ask();
                    }
                    if reply || recorded.elapsed() >= RECORD_IDLE {
                        *recorded = Instant::now();
                        self.decoder.seen(StateVersion(position));
                    }
                    continue;
                }
            }
            count += 1;
            if count >= BATCH_OPS {
                self.gauges.lag.heard(None, Instant::now());
                return Ok(true);
            }
        }
    }

    async fn hand_on(&mut self, arrived: Instant) -> Result<(), WriterGone> {
        if self.decoder.take_schema_hint() {
            // A full queue means that a look is due anyway.
            let _ = self.hints.try_send(());
        }
        if self.decoder.is_empty() {
            return Ok(());
        }
        let now = self.decoder.catalogue().clone();
        let before = self.catalogue.replace(now.clone());
        if !Arc::ptr_eq(&before, &now) {
            let changes = [("changes", describe(&before, &now))];
            self.events.log(Level::Info, "the replica follows a change of the schema", &changes);
        }
        let batch = Operations { arrived: Some(arrived), ..self.decoder.take() };
        self.feed.hand_on(batch).await
    }
}

/// Asks the status task for a status at once.
#[derive(Clone)]
pub struct Statuses {
    asked: Rc<Cell<bool>>,
    wake: Sender<()>,
}

impl Statuses {
    /// The handle, and what [`report`] waits for.
    pub fn new() -> (Statuses, Receiver<()>) {
        // One message says all: look again.
        let (wake, woken) = bounded(1);
        (Statuses { asked: Rc::new(Cell::new(false)), wake }, woken)
    }

    fn ask(&self) {
        self.asked.set(true);
        let _ = self.wake.try_send(());
    }
}

/// Sends statuses until the connection fails. Independent of the reader, so that
/// back-pressure does not look like death to the server.
pub async fn report(
    mut writer: Writer,
    statuses: Statuses,
    woken: Receiver<()>,
    feed: &Feed,
    gauges: Arc<Gauges>,
    wal_sender_timeout: Duration,
) -> PostgresError {
    let mut acks = Acks::new(wal_sender_timeout, Instant::now());
    loop {
        let asked = statuses.asked.take();
        if let Some(position) = acks.due(feed.durable(), asked, Instant::now()) {
            if let Err(e) = writer.status(position.0).await {
                return e;
            }
            gauges.set_acknowledged(acks.acknowledged().max(gauges.acknowledged()));
        }
        let asked = std::pin::pin!(woken.recv());
        let grew = std::pin::pin!(feed.durable_grew());
        let timer = std::pin::pin!(executor::sleep(acks.check_after()));
        // Whichever it is: a look says what is due.
        future::select(future::select(asked, grew), timer).await;
    }
}
