//! Messages, and what the app is asked for them, in an order that loses one of them, or has somebody wait for ever.

use bytes::Bytes;
use kelvin::backend::turns::CallKind;
use kelvin::core::effect::QuestionId;
use kelvin::protocol::cookie::Cookie;
use kelvin::protocol::error::{Kind, ProtocolError};
use kelvin::protocol::upstream::QueryOp;
use serde_json::{Value, json};

use crate::model::choices::Choices;
use crate::model::client::{Receiver, Store};
use crate::model::disk::Disk;
use crate::model::socket::Line;
use crate::model::upstream;
use crate::model::world::{EPOCH, Tab, World, put};

const ITEMS: usize = 0;
const OTHERS: usize = 1;
const LARGE: usize = 8;

fn choices() -> Choices {
    Choices::new((0, 0))
}

/// A world with a row, and a tab that has it.
fn world() -> World {
    let mut world = World::new(1, 350);
    world.write("+item a - 1 -");
    world.tab(0, &[ITEMS]);
    world.settled();
    world
}

fn line(world: &World, tab: usize) -> Line {
    world.groups[0].tabs[tab].line.clone().expect("connected")
}

/// A tab that has not connected yet.
fn away(world: &mut World, wanted: &[usize]) -> usize {
    let group = &mut world.groups[0];
    let receiver = Receiver::new(group.schema.clone(), Store::default());
    let client = format!("g0t{}", group.tabs.len());
    let wanted = wanted.iter().copied().collect();
    group.tabs.push(Tab { client, receiver, wanted, line: None, mutations: 0, sent: 0 });
    group.tabs.len() - 1
}

/// What the app is being asked, and was not before.
fn asked(world: &World, kind: CallKind) -> Vec<QuestionId> {
    let calls = world.core.calls.iter().filter(|(_, call)| call.kind == kind);
    calls.map(|(id, _)| *id).collect()
}

fn hashes(world: &World, id: QuestionId) -> Vec<String> {
    let body: Value = serde_json::from_slice(&world.core.calls[&id].body).expect("JSON");
    let queries = body[1].as_array().expect("a list");
    queries.iter().map(|query| query["id"].as_str().expect("a hash").to_owned()).collect()
}

fn got(world: &World, tab: usize) -> Vec<&str> {
    world.groups[0].tabs[tab].receiver.store.got.iter().map(String::as_str).collect()
}

/// Lets a tab in that the app says nothing of; returns what is asked for it then.
fn let_in(world: &mut World, tab: usize) -> QuestionId {
    assert!(world.arrive(&mut choices(), 0, tab));
    world.core.serve();
    let first = asked(world, CallKind::Transform).pop().expect("it is asked about");
    world.answer_nothing(first);
    world.core.serve();
    asked(world, CallKind::Transform).pop().expect("its queries are asked for")
}

#[test]
fn nothing_of_a_group_is_there_before_the_app_has_let_somebody_in() {
    let mut world = World::new(1, 0);
    let tab = away(&mut world, &[ITEMS]);
    assert!(world.arrive(&mut choices(), 0, tab));
    world.core.serve();
    assert!(world.core.look().groups.is_empty(), "the app may refuse it");
    let first = asked(&world, CallKind::Transform)[0];
    assert_eq!(hashes(&world, first), ["q0"]);
    world.answer(&mut choices(), first);
    world.settled();
    assert_eq!(got(&world, tab), ["q0"]);
    world.end().unwrap();
}

#[test]
fn a_request_that_outlives_its_group_takes_nothing_from_one_that_follows_it() {
    let mut world = World::new(1, 0);
    let first = away(&mut world, &[ITEMS]);
    let late = let_in(&mut world, first);
    let over = ProtocolError::new(Kind::Internal, "over");
    world.core.syncer().fail_group(&"g0".into(), &over);
    world.disconnect(0, first);
    let second = away(&mut world, &[OTHERS]);
    let own = let_in(&mut world, second);
    assert_eq!((hashes(&world, late), hashes(&world, own)), (vec!["q0".into()], vec!["q1".into()]));
    // Its queries are of no use to anybody; that it is over must not end what the other asked for.
    world.answer(&mut choices(), late);
    world.core.serve();
    world.answer(&mut choices(), own);
    world.settled();
    assert_eq!(got(&world, second), ["q1"]);
    world.end().unwrap();
}

#[test]
fn what_a_connection_asked_for_and_left_before_it_was_answered_is_asked_for_by_the_next() {
    let mut world = world();
    let second = world.tab(0, &[ITEMS]);
    world.settled();
    // Refused, for both.
    world.want(0, 0, vec![put(OTHERS, 1.0)]).unwrap();
    world.want(0, second, vec![put(OTHERS, 1.0)]).unwrap();
    let id = asked(&world, CallKind::Transform)[0];
    let refused = json!(["transformed", [{"error": "app", "id": "q1", "name": "query1", "message": "no"}]]);
    world.core.answer(id, Ok(Bytes::from(refused.to_string())));
    world.core.serve();
    assert!(asked(&world, CallKind::Transform).is_empty());
    // The second asks again, on a connection that is being closed.
    let closing = line(&world, second);
    world.core.message(closing.id, upstream::change(&[put(OTHERS, 1.0)]));
    closing.outbox.close_with(1000, "over");
    world.core.serve();
    let id = asked(&world, CallKind::Transform).pop().expect("the first wants it as well");
    world.answer(&mut choices(), id);
    world.disconnect(0, second);
    world.settled();
    assert_eq!(got(&world, 0), ["q0", "q1"]);
    world.end().unwrap();
}

#[test]
fn a_tab_does_not_wait_for_what_only_somebody_wants_who_is_away() {
    let mut world = world();
    let leaves = world.tab(0, &[ITEMS]);
    world.settled();
    // It has a cookie of a server that was ahead, and is told something when this one has come so far.
    let ahead = away(&mut world, &[ITEMS]);
    let version = world.core.look().shared.version.0;
    let cookie = Cookie::new(version + 3, EPOCH + 1_000, 0).to_string();
    world.groups[0].tabs[ahead].receiver.store.cookie = Some(cookie);
    assert!(world.arrive(&mut choices(), 0, ahead));
    world.core.serve();
    for id in asked(&world, CallKind::Transform) {
        world.answer(&mut choices(), id);
    }
    world.core.serve();
    world.want(0, leaves, vec![put(OTHERS, 300_000.0)]).unwrap();
    let id = asked(&world, CallKind::Transform)[0];
    world.fail(id);
    world.core.serve();
    assert!(asked(&world, CallKind::Transform).is_empty(), "nobody who is there wants it");
    world.receive(0, leaves, usize::MAX).unwrap();
    assert!(world.groups[0].tabs[leaves].line.is_none(), "it is told that the app failed");
    world.settled();
    assert_eq!(got(&world, ahead), ["q0"], "it waits for ever");
    world.end().unwrap();
}

#[test]
fn a_message_that_waits_until_something_was_recorded_is_handled_then() {
    let mut world = world();
    world.start_recording(Disk::new(true));
    let second = world.tab(0, &[ITEMS]);
    world.settled();
    world.core.limit(|limits| limits.outboxes.bytes = 1);
    world.replicate("item a n=2");
    while world.work() {}
    assert!(kelvin::groups::sink::Sink::is_behind(&*line(&world, 0).outbox), "what it is told is not held");
    let gone = world.groups[0].tabs[second].client.clone();
    world.disconnect(0, second);
    world.delete(0, 0, std::slice::from_ref(&gone));
    assert!(asked(&world, CallKind::CleanUp).is_empty());
    while world.written() {}
    world.core.serve();
    assert_eq!(asked(&world, CallKind::CleanUp).len(), 1, "nobody goes on with it");
    world.settled();
    world.end().unwrap();
}

#[test]
fn an_error_is_not_told_in_the_middle_of_a_poke_whose_rest_was_dropped() {
    let mut world = world();
    world.start_recording(Disk::new(true));
    world.want(0, 0, vec![put(LARGE, 1.0)]).unwrap();
    world.reply(&mut choices(), false);
    // A poke goes half way, the next is held.
    let tab = line(&world, 0);
    tab.socket.stopped.set(true);
    world.core.start_hydrations(false);
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    while world.work() {}
    while world.written() {}
    tab.socket.most.set(100);
    tab.socket.stopped.set(false);
    assert!(
        tab.outbox
            .offer(|frames| kelvin::core::socket::Socket::try_send(&*tab.socket, frames))
            .is_ok_and(|n| tab.outbox.written(Ok(n)) || n > 0)
    );
    tab.socket.stopped.set(true);
    world.replicate("item a n=2");
    while world.work() {}
    world.want(0, 0, vec![put(OTHERS, 1.0)]).unwrap();
    let id = asked(&world, CallKind::Transform)[0];
    world.fail(id);
    world.core.serve();
    assert!(tab.outbox.has_ended());
    tab.socket.stopped.set(false);
    while world.written() {}
    // The tab takes nothing that a stock client would not forgive.
    world.receive(0, 0, usize::MAX).unwrap();
    assert!(world.groups[0].tabs[0].line.is_none(), "it was not told");
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_tab_that_is_refused_while_a_record_is_written_was_told_that_it_is_connected() {
    let mut world = world();
    world.start_recording(Disk::new(true));
    world.settled();
    world.replicate("item a n=2");
    while world.work() {}
    // The record is on its way to the disk, and what is told meanwhile waits for it.
    world.record();
    let second = away(&mut world, &[ITEMS]);
    assert!(world.arrive(&mut choices(), 0, second));
    world.core.serve();
    let id = asked(&world, CallKind::Transform)[0];
    world.fail(id);
    world.core.serve();
    // A stock client that is told an error first does not know what it is an answer to.
    world.receive(0, second, usize::MAX).unwrap();
    while world.written() {}
    world.receive(0, second, usize::MAX).unwrap();
    world.settled();
    world.end().unwrap();
}

#[test]
fn mutations_of_a_tab_that_left_are_brought_to_the_app_in_order() {
    let mut world = world();
    let tab = line(&world, 0);
    for id in 1..=3 {
        world.core.message(tab.id, upstream::push("g0", "g0t0", id));
    }
    world.core.message(tab.id, upstream::change(&[QueryOp::Clear]));
    world.disconnect(0, 0);
    world.core.serve();
    let mut brought = Vec::new();
    while let Some(id) = asked(&world, CallKind::Push).pop() {
        let body: Value = serde_json::from_slice(&world.core.calls[&id].body).expect("JSON");
        let ids = body["mutations"].as_array().expect("a list").iter().map(|m| m["id"].as_u64());
        brought.extend(ids.flatten());
        world.answer(&mut choices(), id);
        world.core.serve();
    }
    assert_eq!(brought, [1, 2, 3]);
    assert_eq!(world.groups[0].tabs[0].mutations, 3);
    let wants = world.core.look().groups["g0"].wants("g0t0", "q0");
    assert!(wants, "of a connection that has gone only the mutations count");
    world.end().unwrap();
}

#[test]
fn a_call_for_a_connection_that_this_server_ended_is_given_up() {
    let mut world = World::new(1, 0);
    let tab = away(&mut world, &[ITEMS]);
    assert!(world.arrive(&mut choices(), 0, tab));
    world.core.serve();
    assert_eq!(asked(&world, CallKind::Transform).len(), 1);
    let line = line(&world, tab);
    line.outbox.close_with(1000, "over");
    world.disconnect(0, tab);
    world.core.serve();
    assert!(asked(&world, CallKind::Transform).is_empty(), "its place at the app stays taken");
    world.end().unwrap();
}

#[test]
fn what_is_done_for_a_client_that_has_gone_ends_after_a_while() {
    let mut world = world();
    world.core.limit(|limits| limits.pushes.of_group = 0);
    let tab = line(&world, 0);
    for id in 1..=3 {
        world.core.message(tab.id, upstream::push("g0", "g0t0", id));
        world.core.serve();
    }
    // The first is with the app, the second waits for it, the third for room.
    assert_eq!(asked(&world, CallKind::Push).len(), 1);
    world.disconnect(0, 0);
    world.core.serve();
    world.now += 11_000.0;
    world.core.set_time(world.now);
    world.core.tick();
    world.core.serve();
    while let Some(id) = asked(&world, CallKind::Push).pop() {
        world.answer(&mut choices(), id);
        world.core.serve();
    }
    assert_eq!(
        world.groups[0].tabs[0].mutations, 2,
        "it would hold on to the core for as long as the app is away"
    );
    world.end().unwrap();
}

#[test]
fn a_tab_that_comes_again_takes_the_place_of_its_connection() {
    let mut world = world();
    let old = line(&world, 0);
    world.vanish(0, 0);
    world.connect(&mut choices(), 0, 0).unwrap();
    assert!(old.outbox.has_ended() && !line(&world, 0).outbox.has_ended());
    // What the old one still says means nothing.
    world.core.message(old.id, upstream::change(&[QueryOp::Clear]));
    world.core.serve();
    assert!(world.core.look().groups["g0"].wants("g0t0", "q0"));
    world.notice_vanished();
    world.settled();
    world.end().unwrap();
}

#[test]
fn nobody_is_let_in_beyond_as_many_as_there_is_room_for() {
    let mut limits = crate::model::core::roomy();
    limits.connections = 1;
    let mut world = World::limited(crate::model::tables::scenario(0), 1, limits);
    world.tab(0, &[ITEMS]);
    let second = away(&mut world, &[ITEMS]);
    assert!(!world.arrive(&mut choices(), 0, second));
    world.receive(0, second, usize::MAX).unwrap();
    assert!(world.groups[0].tabs[second].line.is_none(), "it is told to come back");
    world.disconnect(0, 0);
    world.connect(&mut choices(), 0, second).unwrap();
    world.settled();
    assert_eq!(got(&world, second), ["q0"]);
    world.end().unwrap();
}
