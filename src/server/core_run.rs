//! The life of one core: it listens, takes the orders of the replication manager, and sends its clients
//! elsewhere in the end.

use std::rc::Rc;
use std::time::Duration;

use kelvin_io::channel::{Receiver, bounded};
use kelvin_io::executor::{sleep, yield_now};
use kelvin_io::socket::Listener;

use super::accept;
use super::core::{Control, Core, Parts};
use super::handover::Handover;
use crate::core::effect::Event;
use crate::groups::sink::Sink;

/// How long closing frames may take to leave when the process stops.
const DRAIN: Duration = Duration::from_millis(500);

/// Time between two signs of life of a core.
const BEAT: Duration = Duration::from_millis(200);

/// Turns of a core in which every task of it has run at least once.
const DRAIN_TURNS: usize = 100;

/// Runs a core until it is told to stop. An error says why it cannot.
pub async fn run(
    parts: Parts,
    orders: Receiver<Control>,
    sockets: Receiver<Box<Handover>>,
) -> Result<(), String> {
    let port = parts.config.port;
    let listener =
        Listener::bind(port).map_err(|error| format!("port {port} cannot be listened on: {error}"))?;
    let cores = parts.peers.len();
    let core = Core::new(parts);
    let listener = Rc::new(listener);
    let (accepted, accepting) = bounded::<()>(1);
    let (accepts, listens) = (core.clone(), listener.clone());
    core.supervisor.spawn("accepting connections", async move {
        accept::run(accepts.clone(), listens).await;
        // Whoever waits for the end hears of it by that.
        drop(accepted);
        std::future::pending().await
    });
    core.supervisor.spawn("sockets of other cores", accept::receive(core.clone(), sockets));
    core.supervisor.spawn("a core's heart", beat(core.clone()));
    while let Ok(order) = orders.recv().await {
        match order {
            Control::Start(start) => {
                core.start(start).await.map_err(|error| format!("the replica cannot be read: {error}"))?;
                if core.status.core_started() == cores {
                    core.status.set_ready(true);
                    crate::info!("zero-cache ready; listening at http://[::]:{}", core.config.port);
                }
            }
            Control::Indexed(catalogue) => {
                if let Some(serving) = core.serving() {
                    serving.tell(Event::Indexed(catalogue));
                }
            }
            Control::Rebegin(answer) => {
                if let Some(serving) = core.serving() {
                    serving.rebegin(answer);
                }
            }
            Control::Stop => {
                core.stop();
                if listener.stop().is_ok() {
                    let _ = accepting.recv().await;
                }
                drain(&core).await;
                return Ok(());
            }
        }
    }
    Err("nobody tells it what to do any more".to_owned())
}

/// Shows that the core lives, whatever else it waits for.
async fn beat(core: Rc<Core>) {
    loop {
        core.status.beat(core.index);
        sleep(BEAT).await;
    }
}

/// Closes every connection in the way that makes clients come back.
async fn drain(core: &Rc<Core>) {
    let open = core.entrance.connections.all();
    open.iter().for_each(|outbox| outbox.close());
    if !open.is_empty() {
        sleep(DRAIN).await;
    }
    // Those whose requests were being read close as soon as they see that the core is to end.
    for _ in 0..DRAIN_TURNS {
        if core.handshakes.is_empty() {
            return;
        }
        yield_now().await;
    }
}
