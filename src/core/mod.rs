//! What one core of the server decides, without IO: batches, hydrations, the work of groups, what is told when and to
//! whom, and what it gives up when there is no room.
//!
//! A [`view_syncer::ViewSyncer`] is a value. Events come in as calls, long work goes on in slices, and what has to be
//! performed comes out as effects. The server runs it on an executor, the simulation step by step.

mod batch;
pub mod connections;
pub mod effect;
mod groups;
pub mod host;
mod hydration;
pub mod hydrations;
pub mod limits;
pub mod outbox;
pub mod overload;
mod reading;
mod readings;
mod recent;
pub mod recording;
mod rounds;
pub mod send_buffer;
pub mod settling;
mod shedding;
mod signal;
mod slices;
pub mod socket;
pub mod state;
mod tasks;
mod version_lock;
pub mod view_syncer;
