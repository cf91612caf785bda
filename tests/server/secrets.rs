//! What is secret stays so: files, passwords, URLs of the app's endpoints, and what another user's group has.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::support::app::{THREE, items};
use crate::support::client::{Client, Event};
use crate::support::http;
use crate::support::stage::Stage;
use crate::support::tokens::Signer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const SECRET: &str = "a secret that is long enough for everybody";

/// The files below a directory that others can read or write.
fn open_files(directory: &Path, found: &mut Vec<String>, closed: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("it can be read").flatten() {
        let (path, about) = (entry.path(), entry.metadata().expect("it is there"));
        if about.is_dir() {
            open_files(&path, found, closed);
            continue;
        }
        let name = path.display().to_string();
        match about.permissions().mode() & 0o077 {
            0 => closed.push(name),
            _ => found.push(name),
        }
    }
}

#[test]
fn nobody_else_can_read_what_is_on_the_disk() {
    // The server has it from this process.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    stage.sql.run("UPDATE item SET n = 7 WHERE id = 'a'");
    tab.until("a change", |c| c.store.row("item", "a").is_some_and(|r| r["n"] == 7));
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    open_files(stage.server.replica().parent().expect("a directory"), &mut open, &mut closed);
    // The log is this test's own.
    open.retain(|name| !name.ends_with("/log"));
    assert_eq!(open, Vec::<String>::new());
    for name in ["replica.db", "replica.db-wal", "replica.db-shm"] {
        assert!(closed.iter().any(|c| c.ends_with(name)), "no {name} in {closed:?}");
    }
    assert!(closed.len() > 3, "the records are among them: {closed:?}");
}

/// Asks for a page that needs the password.
fn statz(port: u16, password: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    let given = STANDARD.encode(format!("anybody:{password}"));
    let head = format!("GET /statz HTTP/1.1\r\nAuthorization: Basic {given}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

fn authenticate(tab: &mut Client, password: &str) -> bool {
    tab.send(json!(["inspect", {"op": "authenticate", "id": "r", "value": password}]));
    tab.until_event("the answer", |event| match event {
        Event::Other(answer) if answer[0] == "inspect" => Some(answer[1]["value"] == json!(true)),
        Event::Error(error) => panic!("{error}"),
        _ => None,
    })
}

#[test]
fn the_password_cannot_be_guessed_without_an_end() {
    let stage = Stage::new(&[("ADMIN_PASSWORD", "right")]);
    assert_eq!(statz(stage.server.port, "right"), 200);
    for n in 0..10 {
        assert_eq!(statz(stage.server.port, &format!("wrong{n}")), 401);
    }
    assert_eq!(statz(stage.server.port, "wrong"), 429);
    assert_eq!(statz(stage.server.port, "right"), 429, "whether it was right is not told");
    let mut tab = stage.tab(&[items()]);
    assert!(!authenticate(&mut tab, "right"), "the same address by another way");
    assert!(
        matches!(http::get(stage.server.port, "/keepalive"), Ok((200, _))),
        "pages without a password go on"
    );
    stage.server.until_log("wrong admin passwords", "");
    let lines = stage.server.log().lines().filter(|l| l.contains("wrong admin passwords")).count();
    assert!((1..5).contains(&lines), "{lines} lines of the log");
}

#[test]
fn the_inspector_counts_guesses_too() {
    let stage = Stage::new(&[("ADMIN_PASSWORD", "right")]);
    let mut tab = stage.tab(&[items()]);
    assert!(authenticate(&mut tab, "right"));
    assert!((0..10).all(|n| !authenticate(&mut tab, &format!("wrong{n}"))));
    assert!(!authenticate(&mut tab, "right"));
    assert_eq!(statz(stage.server.port, "right"), 429);
}

#[test]
fn what_is_secret_in_the_urls_of_endpoints_is_told_to_nobody() {
    // Nobody listens there.
    let url = "http://user:hunter2@127.0.0.1:1/api?key=hunter2";
    let stage = Stage::new(&[("QUERY_URL", url)]);
    let mut tab = stage.client();
    tab.open(Some(&tab.init_body(vec![items().put()])));
    tab.until_connected();
    let error = tab.until_error();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("http://127.0.0.1:1/api"), "it says what is wrong: {error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    // Nor does a URL that a client names, whatever is in it.
    let mut tab = stage.client();
    tab.init = json!({"userQueryURL": "http://hunter2@elsewhere/?hunter2"});
    tab.open(Some(&tab.init_body(vec![items().put()])));
    tab.until_connected();
    let error = tab.until_error();
    assert!(error["message"].as_str().is_some_and(|m| m.contains("not allowed")), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!stage.server.log().contains("hunter2"));
    let stage = Stage::new(&[("MUTATE_URL", url)]);
    let mut tab = stage.tab(&[items()]);
    tab.mutate("put", json!({"id": "a", "n": 1}));
    let error: Value = tab.until_error();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!stage.server.log().contains("hunter2"));
}

#[test]
fn nobody_joins_a_group_whose_user_has_shown_a_token_by_naming_the_user() {
    let mut stage = Stage::prepared(THREE, &[("AUTH_SECRET", SECRET)]);
    let signer = Signer::secret(SECRET.as_bytes());
    let mut owner = stage.client();
    (owner.user, owner.token) = (Some("u".into()), Some(signer.token("u")));
    owner.connect(&[items()]);
    owner.until_got(&[items()]);
    let stranger = |stage: &Stage| {
        let mut stranger = Client::in_group(&stage.server, &owner.group);
        stranger.user = Some("u".into());
        stranger
    };
    assert_eq!(stranger(&stage).until_refused()["kind"], "Unauthorized");
    // It is written down.
    stage.server.kill();
    stage.server.start();
    assert_eq!(stranger(&stage).until_refused()["kind"], "Unauthorized");
    let mut second = owner.sibling();
    second.connect(&[items()]);
    second.until_got(&[items()]);
    // Whoever never had one goes on without, also in several tabs.
    let mut guest = stage.client();
    guest.user = Some("anon".into());
    guest.connect(&[items()]);
    guest.until_got(&[items()]);
    let mut tab = guest.sibling();
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
}
