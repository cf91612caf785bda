//! A client group's queries take more than a group may have, or it is refused what it may have
//! (`docs/decisions/008-overload.md`).

use crate::model::world::{World, put};
use kelvin::protocol::upstream::{QueryBody, QueryOp};
use kelvin::views::view::ViewId;

/// Items in two ways, those with tags, and names.
const ITEMS: usize = 0;
const LAST: usize = 1;
const TAGGED: usize = 2;
const NAMES: usize = 5;

/// What the queries here are spelled by: a name and no arguments.
const SPELLED: usize = "query0[]".len();

/// Two groups that have the same query.
fn two_groups() -> World {
    let mut world = World::new(2, 0);
    world.write("+item a - 1 -; +tag a a 0; +named x x 1");
    world.tab(0, &[ITEMS]);
    world.tab(1, &[ITEMS]);
    world.settled();
    world
}

fn got(world: &World, group: usize) -> Vec<String> {
    world.groups[group].tabs[0].receiver.store.got.iter().cloned().collect()
}

/// What the tab of a group was told that it cannot have.
fn refused(world: &World, group: usize) -> &[String] {
    &world.groups[group].tabs[0].receiver.refused
}

/// A tab asks for these. They go as soon as they are not wanted any more.
fn ask(world: &mut World, group: usize, queries: &[usize]) {
    world.groups[group].tabs[0].wanted.extend(queries);
    world.want(group, 0, queries.iter().map(|query| put(*query, 0.0)).collect()).unwrap();
    world.settled();
}

fn give_up(world: &mut World, group: usize, query: usize) {
    world.groups[group].tabs[0].wanted.remove(&query);
    world.want(group, 0, vec![QueryOp::Del { hash: format!("q{query}") }]).unwrap();
    world.now += 1_000.0;
    world.settled();
}

/// Bytes of what is made of a query.
fn planned(world: &World, query: usize) -> usize {
    let syncer = world.core.look();
    let group = &syncer.groups[world.groups[0].id.as_str()];
    let view: Option<ViewId> = group.queries.get(&format!("q{query}")).and_then(|query| query.current);
    view.and_then(|view| syncer.shared.views.get(view)).expect("it is answered").asked
}

#[test]
fn a_query_with_more_arguments_than_one_may_have_is_refused_and_the_app_is_not_asked() {
    let mut world = two_groups();
    world.core.syncer().shared.query_limits.arguments = 10;
    let with = |args: &'static str| {
        let args = serde_json::from_str(args).expect("a list");
        let query = Some(QueryBody::Named { name: format!("query{NAMES}"), args });
        QueryOp::Put { hash: format!("q{NAMES}"), ttl: Some(0.0), query }
    };
    let (fits, too_much) = (with("[\"123456\"]"), with("[\"1234567\"]"));
    // Not for a client that is just being let in either.
    let asked = |op: &QueryOp<'static>| {
        let named = world.core.look().prospective(&world.groups[0].id, std::slice::from_ref(op));
        named.iter().any(|named| named.hash == format!("q{NAMES}"))
    };
    assert_eq!((asked(&fits), asked(&too_much)), (true, false));
    world.want(0, 0, vec![too_much]).unwrap();
    assert!(!world.owes());
    world.settled();
    assert_eq!(got(&world, 0), ["q0"]);
    assert_eq!(refused(&world, 0), ["q5"]);
    world.want(0, 0, vec![fits]).unwrap();
    world.settled();
    assert_eq!((got(&world, 0).len(), refused(&world, 0).len()), (2, 1));
    world.end().unwrap();
}

#[test]
fn queries_that_are_spelled_by_more_than_a_group_may_have_are_refused_until_others_go() {
    let mut world = two_groups();
    world.core.syncer().shared.query_limits.asked = 2 * SPELLED;
    ask(&mut world, 0, &[LAST, TAGGED]);
    assert_eq!(got(&world, 0), ["q0", "q1"]);
    assert_eq!(refused(&world, 0), ["q2"]);
    // Another group has its own.
    ask(&mut world, 1, &[TAGGED]);
    assert_eq!((got(&world, 1).len(), refused(&world, 1).len()), (2, 0));
    give_up(&mut world, 0, LAST);
    ask(&mut world, 0, &[TAGGED]);
    assert_eq!(got(&world, 0), ["q0", "q2"]);
    assert_eq!(refused(&world, 0).len(), 1);
    world.end().unwrap();
}

#[test]
fn queries_that_are_made_into_more_than_a_group_may_have_are_refused_until_others_go() {
    let mut world = two_groups();
    ask(&mut world, 0, &[LAST, TAGGED]);
    let [items, last, tagged] = [ITEMS, LAST, TAGGED].map(|query| planned(&world, query));
    world.end().unwrap();

    let mut world = two_groups();
    world.core.syncer().shared.query_limits.plans = items + last.max(tagged);
    ask(&mut world, 0, &[LAST, TAGGED]);
    assert_eq!(got(&world, 0), ["q0", "q1"]);
    assert_eq!(refused(&world, 0), ["q2"]);
    // Though another group has the same, which takes nothing more.
    ask(&mut world, 1, &[TAGGED]);
    assert_eq!((got(&world, 1).len(), refused(&world, 1).len()), (2, 0));
    give_up(&mut world, 0, LAST);
    ask(&mut world, 0, &[TAGGED]);
    assert_eq!(got(&world, 0), ["q0", "q2"]);
    assert_eq!(refused(&world, 0).len(), 1);
    world.end().unwrap();
}
