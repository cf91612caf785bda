//! A series that shows what is not so. Each is driven to a value that is known from elsewhere: from the tab, the
//! app, Postgres, or the disk.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::series::acts::{ACTS, PREPARE, SHOWN, live};
use crate::series::page::Page;
use crate::series::table::TABLE;
use crate::series::world::World;
use crate::support::app::of;
use crate::support::client::{Client, Event};
use crate::support::http;
use crate::support::stage::Stage;

#[test]
fn each_series_shows_what_was_done() {
    let stage = Stage::prepared(
        PREPARE,
        &[("MEMORY_BUDGET_MB", "2048"), ("REPLICATION_LAG_REPORT_INTERVAL_MS", "1000")],
    );
    let tab = stage.client();
    let mut world = World {
        stage,
        tab,
        others: Vec::new(),
        open: None,
        before: Page::default(),
        calls: 0,
        sent: (0, 0),
        received: 0,
        lsn: 0.0,
    };
    let names: BTreeSet<String> = TABLE
        .iter()
        .map(|(series, ..)| series.split('{').next().unwrap_or(series).trim_end_matches("_sum").to_owned())
        .collect();
    assert_eq!(world.page().names, names, "the page and the table name the same series");
    for (act, perform) in ACTS {
        world.remember();
        perform(&mut world);
        let deadline = Instant::now() + SHOWN;
        loop {
            world.read();
            let page = world.page();
            let rows = TABLE.iter().filter(|(_, of, _)| *of == act);
            let misses: Vec<String> =
                rows.filter_map(|(series, _, shows)| shows.misses(&world, &page, series)).collect();
            if misses.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "after: {act}\n{}", misses.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn sockets_go_to_the_core_of_their_group() {
    let stage = Stage::new(&[("NUM_SYNC_WORKERS", "2")]);
    let page = || Page::parse(&http::get(stage.server.port, "/metrics").expect("a page").1);
    let mut tabs: Vec<Client> = (0..30).map(|_| stage.tab(&[live()])).collect();
    let moved = |page: &Page| page.value("kelvin_sockets_handed_over_total");
    // A core counts what it has sent, and the other may be faster.
    let deadline = Instant::now() + SHOWN;
    let mut open = page();
    while open.value("kelvin_sockets_received_total") != moved(&open) {
        assert!(Instant::now() < deadline, "{open:?}");
        open = page();
    }
    assert!(moved(&open) > 0.0, "one of two cores accepts all the sockets of its groups");
    assert_eq!(open.value("kelvin_connections_accepted_total"), 30.0);
    assert_eq!(open.value("kelvin_connections_open"), 30.0);
    tabs.iter_mut().for_each(Client::close);
    let deadline = Instant::now() + SHOWN;
    while page().value("kelvin_connections_open") > 0.0 {
        assert!(Instant::now() < deadline, "{:?}", page());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(page().value("kelvin_connections_closed_total"), 30.0);
}

#[test]
fn tables_that_are_filled_are_counted() {
    let mut stage = Stage::new(&[]);
    let port = stage.server.port;
    let until = |series: &str, value: f64| {
        let deadline = Instant::now() + SHOWN;
        let page = || Page::parse(&http::get(port, "/metrics").expect("a page").1);
        while page().value(series) != value {
            assert!(Instant::now() < deadline, "{series} is not {value}: {:?}", page());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // The snapshot of a copy waits for whoever writes.
    let mut open = stage.connect();
    open.run("BEGIN; INSERT INTO tick VALUES (77)");
    stage
        .sql
        .run("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later SELECT generate_series(1, 1234)");
    until("kelvin_tables_filling", 1.0);
    open.run("COMMIT");
    until("kelvin_tables_filling", 0.0);
    until("kelvin_tables_filling_rows", 1234.0);
}

#[test]
fn those_without_room_are_counted() {
    let rows =
        "INSERT INTO item SELECT repeat('k', 400) || i, 'o' || i % 200, i FROM generate_series(1, 200000) i";
    let stage = Stage::prepared(rows, &[("MEMORY_BUDGET_MB", "96")]);
    let page = || Page::parse(&http::get(stage.server.port, "/metrics").expect("a page").1);
    // The first copy takes much for a moment: nobody is let in until that is given back.
    let deadline = Instant::now() + SHOWN;
    let mut first = stage.client();
    let is_refused = |client: &mut Client| {
        client.open(Some(&client.init_body(vec![of("o0").put()])));
        matches!(client.next(SHOWN), Some(Event::Error(_)))
    };
    while is_refused(&mut first) {
        assert!(Instant::now() < deadline, "nobody is let in");
        std::thread::sleep(Duration::from_millis(200));
    }
    first.vanish();
    let before = page().value("kelvin_overload_refusals_total");
    // Who is told before it is let in, who after that, and who is served.
    let (mut refused, mut sent_away, mut served) = (0u32, 0u32, Vec::new());
    for owner in 0..200 {
        match arrive(&stage, owner) {
            Arrived::Served(client) => served.push(client),
            Arrived::SentAway => sent_away += 1,
            Arrived::Refused => refused += 1,
        }
        if refused > 2 {
            break;
        }
    }
    assert!(refused > 2, "{sent_away} were sent away, {} served", served.len());
    assert_eq!(page().value("kelvin_overload_refusals_total") - before, f64::from(refused));
    // What those leave that close is given up when others come.
    let mut closed = served.len();
    served.iter_mut().for_each(|client| client.vanish());
    let deadline = Instant::now() + SHOWN;
    for owner in (0..200).cycle() {
        let shed = page().value("kelvin_overload_groups_shed_total");
        assert!(shed <= 1.0 + closed as f64 + f64::from(sent_away), "{shed} of {closed} and {sent_away}");
        if shed > 1.0 + f64::from(sent_away) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was given up");
        match arrive(&stage, owner) {
            Arrived::Served(mut client) => {
                client.vanish();
                closed += 1;
            }
            Arrived::SentAway => sent_away += 1,
            Arrived::Refused => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What becomes of somebody who asks for rows that nobody has yet.
enum Arrived {
    Served(Box<Client>),
    /// Told after it was let in.
    SentAway,
    /// Told before that.
    Refused,
}

fn arrive(stage: &Stage, owner: usize) -> Arrived {
    let mut client = stage.client();
    client.open(Some(&client.init_body(vec![of(&format!("o{owner}")).put()])));
    let mut is_in = false;
    loop {
        match client.next(SHOWN).expect("an answer") {
            Event::Connected(_) => is_in = true,
            Event::Error(error) => {
                assert_eq!(error["kind"], "ServerOverloaded");
                return if is_in { Arrived::SentAway } else { Arrived::Refused };
            }
            _ if client.store.got.len() == 1 => return Arrived::Served(Box::new(client)),
            _ => {}
        }
    }
}
