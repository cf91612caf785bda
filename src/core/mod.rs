//! What one core of the server decides, without IO: batches, hydrations, the work of groups, what is told when and to
//! whom, and what it gives up when there is no room.
//!
//! A [`view_syncer::ViewSyncer`] is a value. Events come in as calls, long work goes on in slices, and what has to be
//! performed comes out as effects. The server runs it on an executor, the simulation step by step.

pub mod admission;
mod asking;
mod batch;

mod clean_ups;
pub mod connections;
pub mod effect;
pub mod entrance;
mod groups;
pub mod host;
mod hydration;
pub mod hydrations;
pub mod inbox;
pub mod limits;
mod messages;
pub mod outbox;
pub mod overload;
mod pushes;
mod pushing;
mod queues;
mod reading;
mod recent;
pub mod recording;
mod replies;
mod rounds;
pub mod send_buffer;
pub mod session;
pub mod settings;
pub mod settling;
mod shedding;
mod signal;
mod slices;
pub mod socket;
pub mod state;
mod tasks;
mod transforms;
mod upkeep;
mod upkeeps;
mod version_lock;
pub mod view_syncer;
pub mod warning;
