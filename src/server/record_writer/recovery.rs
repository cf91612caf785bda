//! A disk that does not take records: clients are sent away until it does.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use kelvin_io::append_file::AppendFile;
use kelvin_io::executor::{blocking, sleep};

use crate::core::effect::Event;
use crate::server::serving::Serving;

/// Time between attempts to begin a file on a disk that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Stops serving: what was sent and waits is dropped, and clients are told to come back.
pub(super) fn fail(serving: &Serving, error: &io::Error) {
    crate::error!(
        core = serving.index;
        "the records of client views cannot be written to {}: {error}. Clients are sent away until they can: \
         make room on the disk, or turn the records off with ZERO_CVR_LOG=off",
        serving.records.directory.display()
    );
    serving.status.set_refuses(serving.index, true);
    serving.records.give_up();
    serving.tell(Event::RecordFailed);
}

/// Tries to begin a new file until the disk takes it.
pub(super) async fn recover(serving: Rc<Serving>) {
    loop {
        sleep(RETRY).await;
        let probe = serving.records.directory.join(format!("probe-{:04}", serving.index));
        let tried = try_disk(&probe).await;
        let _ = blocking(move || std::fs::remove_file(probe)).await;
        if tried.is_ok() {
            break;
        }
    }
    crate::info!(core = serving.index; "the disk takes records again: clients are served");
    serving.status.set_refuses(serving.index, false);
    serving.tell(Event::RecordRecovered);
}

/// Room that must be there before clients are let in again.
const PROBE: usize = 1 << 20;

async fn try_disk(path: &std::path::Path) -> io::Result<()> {
    let mut file = AppendFile::create(path).await?;
    file.append(vec![0; PROBE]).await?;
    file.sync().await?;
    file.close().await;
    Ok(())
}
