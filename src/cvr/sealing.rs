//! The end of a group's history in one epoch (rule 18), and of what it remembers of views that it left.

use std::collections::BTreeMap;

use super::record::{Log, cookie};
use super::recovered::RecoveredGroup;
use crate::cvr::record::GroupRecord;
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::protocol::cookie::{Cookie, MAX_STEP};

/// Epochs before the present one whose cookies a group can be served from.
const MAX_SEALS: usize = 16;

/// Ends a group's history in one epoch: its state is that of its views when the log ended, and
/// every cookie that it may have been given is below its last one.
pub(super) fn seal(
    record: &mut GroupRecord,
    head: StateVersion,
    log: Log,
    views: &BTreeMap<RecordId, StateVersion>,
) {
    if record.seals.last().is_some_and(|seal| seal.0 >= log.0) {
        return;
    }
    let told = cookie(record.cookie);
    // What clients want may be another thing than what is known: not one of their cookies is (rule 21).
    let known = if record.lost { (log.0, 0, 0, 0) } else { (log.0, head.0, told.major, told.config) };
    record.lost = false;
    record.seals.push(known);
    if record.seals.len() > MAX_SEALS {
        record.seals.remove(0);
    }
    let last = Cookie::new(head.0.max(told.major), log.0, MAX_STEP).max(told);
    record.cookie = (last.major, last.config);
    let of = |(epoch, number, _): &(u64, u64, _)| views.get(&RecordId { epoch: *epoch, number: *number });
    let version = record.views.iter().map(of).try_fold(head, |least, at| Some(least.min(*at?)));
    match version.filter(|_| record.floor <= record.cookie) {
        Some(version) => record.version = version.0,
        None => {
            // A view is not known any more, or a change of the group, and with it not what tabs hold.
            record.floor = record.cookie;
            record.views.clear();
        }
    }
}

/// Forgets the views left longest ago beyond so many rows.
pub(super) fn forget_left(group: &mut RecoveredGroup, most: usize) {
    while group.left.iter().map(|left| left.rows.len()).sum::<usize>() > most {
        let Some(dropped) = group.left.pop_front() else { break };
        let until = (dropped.until.major, dropped.until.config);
        group.record.floor = group.record.floor.max(until);
    }
}
