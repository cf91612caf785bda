//! The files of the record logs: their names, reading them at the start, and which core goes on
//! with what (rule 24).
//!
//! A file is named by epoch, core and sequence, so that names in order are files in order. The
//! number of cores may change between starts: groups belong to whichever core owns them now,
//! with the views that they had.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::handover::owner;
use crate::cvr::frame::Frames;
use crate::cvr::record::Record;
use crate::cvr::recovered::{Generation, Recovered, RecoveredGroup};
use crate::cvr::replay::Replay;
use crate::model::ids::RecordId;

/// Ending of the files' names.
const ENDING: &str = "records";

/// Bytes that are read at once: a log may be larger than what it says.
const PART: usize = 256 << 10;

/// Marks numbers that a view got because it moved to another core.
const MOVED: u64 = 1 << 47;

/// Directory of the files, beside the replica.
pub fn directory(replica: &Path) -> PathBuf {
    let mut name = replica.as_os_str().to_owned();
    name.push("-records");
    name.into()
}

/// Name of a file.
pub fn name(epoch: u64, core: usize, sequence: u64) -> String {
    format!("{epoch:020}-{core:04}-{sequence:08}.{ENDING}")
}

/// Epoch, core and sequence of a file.
type Name = (u64, usize, u64);

fn parse(name: &str) -> Option<Name> {
    let mut parts = name.strip_suffix(ENDING)?.strip_suffix('.')?.split('-');
    let parsed = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

/// A link to a device, say, could be read without end.
fn is_file(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file())
}

/// All files, in order.
fn list(directory: &Path) -> io::Result<Vec<(Name, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(parsed) = entry.file_name().to_str().and_then(parse).filter(|_| is_file(&entry)) {
            files.push((parsed, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads what there is, making the directory if there is none, and has all of it survive a power cut:
/// what this process writes says how far the records before it were known, and that must not be less
/// afterwards. One of each core. `limit`: bytes that
/// views and their rows may take; beyond it views are left out, and groups that had them start over.
/// Restoring takes about as much once more. Blocks: call it before there are executors.
pub fn read(directory: &Path, cores: usize, limit: usize) -> io::Result<Vec<Recovered>> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut replay = Replay::up_to(limit);
    let mut bytes_read = 0;
    for (_, path) in list(directory)? {
        let file = File::open(&path)?;
        file.sync_data()?;
        let length = file.metadata()?.len();
        bytes_read += length;
        if let Some(why) = read_file(file, length, &mut replay)? {
            crate::info!(file = path.display().to_string(); "a record log ends early: {why}");
        }
    }
    File::open(directory)?.sync_all()?;
    let recovered = replay.finish();
    if bytes_read > 0 {
        crate::info!(
            bytes = bytes_read, groups = recovered.groups.len(), views = recovered.generations.len();
            "records of client views were read"
        );
    }
    if recovered.left_out > 0 {
        crate::warn!(
            views = recovered.left_out, limit = limit;
            "the records of some views would take too much memory: clients that had them start anew"
        );
    }
    Ok(split(recovered, cores))
}

/// Reads one file of this length. Returns why it was not read to its end.
fn read_file(file: File, length: u64, replay: &mut Replay) -> io::Result<Option<String>> {
    let Some(mut frames) = Frames::of(BufReader::with_capacity(PART, file))? else {
        return Ok(Some("it has no beginning that this version knows".to_owned()));
    };
    while let Some(payload) = frames.next_payload()? {
        match Record::read(payload) {
            Ok(record) => replay.apply(record),
            Err(_) => {
                return Ok(Some("a record of client views is not one that this version writes".to_owned()));
            }
        }
    }
    let rest = length.saturating_sub(frames.held());
    Ok((rest > 0).then(|| format!("its last {rest} bytes are no whole record")))
}

/// Removes files that are not needed any more: of earlier epochs, or of earlier files of one core.
pub fn remove(directory: &Path, is_over: impl Fn(u64, usize, u64) -> bool) -> io::Result<()> {
    for ((epoch, core, sequence), path) in list(directory)? {
        if is_over(epoch, core, sequence) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Gives each core its groups, and the views that they had.
fn split(recovered: Recovered, cores: usize) -> Vec<Recovered> {
    let Recovered { replica, head, names, generations, groups, schemas, left_out } = recovered;
    let generations: BTreeMap<RecordId, Generation> = generations.into_iter().map(|i| (i.id, i)).collect();
    let mut by_core: Vec<Vec<RecoveredGroup>> = (0..cores).map(|_| Vec::new()).collect();
    for group in groups {
        by_core[owner(&group.record.id, cores)].push(group);
    }
    let of_core = |(core, mut groups): (usize, Vec<RecoveredGroup>)| {
        let mut views = HashMap::new();
        for group in &mut groups {
            adopt(core, group, &generations, &mut views);
        }
        Recovered {
            replica,
            head,
            names: names.clone(),
            generations: views.into_values().collect(),
            groups,
            schemas: schemas.clone(),
            left_out,
        }
    };
    by_core.into_iter().enumerate().map(of_core).collect()
}

/// Collects the views of a group. One of another core gets a number of this one: two cores
/// could go on with it.
fn adopt(
    core: usize,
    group: &mut RecoveredGroup,
    generations: &BTreeMap<RecordId, Generation>,
    views: &mut HashMap<RecordId, Generation>,
) {
    let mut renamed: HashMap<(u64, u64), (u64, u64)> = HashMap::new();
    for (epoch, number, _) in &mut group.record.views {
        let id = RecordId { epoch: *epoch, number: *number };
        let Some(generation) = generations.get(&id) else { continue };
        let new = moved(id, core, generations, views);
        views.entry(new).or_insert_with(|| Generation { id: new, ..generation.clone() });
        renamed.insert((*epoch, *number), (new.epoch, new.number));
        (*epoch, *number) = (new.epoch, new.number);
    }
    for query in &mut group.record.queries {
        query.view = query.view.and_then(|id| renamed.get(&id).copied());
    }
}

fn moved(
    id: RecordId,
    core: usize,
    generations: &BTreeMap<RecordId, Generation>,
    views: &HashMap<RecordId, Generation>,
) -> RecordId {
    if id.core() == core {
        return id;
    }
    let wanted = generations.get(&id);
    let is_same = |other: &Generation| {
        wanted.is_some_and(|wanted| {
            Arc::ptr_eq(&wanted.members, &other.members) && Arc::ptr_eq(&wanted.key, &other.key)
        })
    };
    let hash = xxhash_rust::xxh3::xxh3_64(&id.number.to_le_bytes());
    let mut number = hash;
    loop {
        let new = RecordId::of_core(id.epoch, core, MOVED | (number & (MOVED - 1)));
        // Another one's number, or this one, that an earlier group brought.
        match views.get(&new) {
            Some(other) if !is_same(other) => {
                number = number.wrapping_add(1);
            }
            None if generations.contains_key(&new) => {
                number = number.wrapping_add(1);
            }
            _ => return new,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::cvr::names::Row;
    use crate::cvr::record::GroupRecord;
    use crate::model::version::StateVersion;

    fn group(id: &str, views: &[(u64, u64)]) -> RecoveredGroup {
        let record = GroupRecord {
            id: id.into(),
            cookie: (1, 1),
            version: 1,
            views: views.iter().map(|(e, n)| (*e, *n, (0, 0))).collect(),
            ..GroupRecord::default()
        };
        RecoveredGroup { record, left: Default::default() }
    }

    fn view(epoch: u64, number: u64) -> Generation {
        Generation {
            id: RecordId { epoch, number },
            key: number.to_le_bytes().into(),
            members: [Row(0)].into(),
            journal: Default::default(),
            at: StateVersion(1),
        }
    }

    #[test]
    fn names_in_order_are_files_in_order() {
        let mut names = [name(10, 0, 1), name(9, 12, 1), name(9, 2, 10), name(9, 2, 9)];
        names.sort();
        let parsed: Vec<_> = names.iter().map(|name| parse(name)).collect();
        assert_eq!(parsed, [Some((9, 2, 9)), Some((9, 2, 10)), Some((9, 12, 1)), Some((10, 0, 1))]);
        assert_eq!(parse("zero.db-wal"), None);
    }

    #[test]
    fn groups_keep_their_views_when_the_number_of_cores_changes() {
        let of_core = |core, n| RecordId::of_core(3, core, n).number;
        let ids = [(3, of_core(0, 1)), (3, of_core(1, 1)), (3, of_core(2, 1))];
        for cores in [1, 2, 5] {
            let groups: Vec<RecoveredGroup> =
                (0..20).map(|n| group(&format!("g{n}"), &[ids[n % 3], ids[(n + 1) % 3]])).collect();
            let recovered = Recovered {
                generations: ids.iter().map(|(e, n)| view(*e, *n)).collect(),
                groups,
                ..Recovered::default()
            };
            let split = split(recovered, cores);
            let ids_of =
                |part: &Recovered| part.groups.iter().map(|g| g.record.id.clone()).collect::<Vec<_>>();
            let known: HashSet<String> = split.iter().flat_map(ids_of).collect();
            assert_eq!((split.len(), known.len()), (cores, 20));
            for (core, part) in split.iter().enumerate() {
                let views: HashMap<RecordId, &Generation> =
                    part.generations.iter().map(|i| (i.id, i)).collect();
                assert_eq!(views.len(), part.generations.len());
                for group in &part.groups {
                    let n: usize = group.record.id[1..].parse().unwrap();
                    let found: Vec<&[u8]> = group
                        .record
                        .views
                        .iter()
                        .map(|(epoch, number, _)| {
                            assert_eq!(RecordId { epoch: *epoch, number: *number }.core(), core);
                            &*views[&RecordId { epoch: *epoch, number: *number }].key
                        })
                        .collect();
                    assert_eq!(found, [ids[n % 3].1.to_le_bytes(), ids[(n + 1) % 3].1.to_le_bytes()]);
                }
            }
        }
    }
}
