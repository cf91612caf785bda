//! The small HTTP pages (`docs/spec/config-ops.md` §7.6).

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kelvin_io::executor::{now, sleep};
use kelvin_io::http_server::{Request, Response};
use serde_json::json;

use super::status::{Password, Status};
use crate::auth::guesses::AGAIN_AFTER;
use crate::config::Config;
use crate::observe::{exposition, log, registry, statz};

/// Answers a request that is no upgrade.
///
/// `from`: the address that asks.
pub async fn answer(request: &Request, from: IpAddr, config: &Config, status: &Status) -> Response {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if request.method != "GET" && request.method != "HEAD" {
        return not_found(&request.method, path);
    }
    if path == "/keepalive" {
        status.keepalive_seen();
    }
    match path {
        "/" | "/keepalive" => match status.health() {
            Ok(()) => Response::text(200, "OK"),
            Err(why) => Response::text(503, why),
        },
        "/statz" => match admit(request, from, (config, status), "Statz Protected Area") {
            Ok(()) => statz_page(query, status).await,
            Err(refusal) => refusal,
        },
        "/heapz" => match admit(request, from, (config, status), "Heapz Protected Area") {
            Ok(()) => Response::text(501, "this server has no heap snapshots; see /metrics"),
            Err(refusal) => refusal,
        },
        "/metrics" => {
            let text = exposition::prometheus(&registry::all(), log::dropped());
            Response { content_type: exposition::CONTENT_TYPE, ..Response::text(200, text) }
        }
        _ => not_found(&request.method, path),
    }
}

fn not_found(method: &str, path: &str) -> Response {
    let message = format!("Route {method}:{path} not found");
    Response::json(404, json!({"message": message, "error": "Not Found", "statusCode": 404}).to_string())
}

/// Checks the admin password; any user name will do.
fn admit(
    request: &Request,
    from: IpAddr,
    (config, status): (&Config, &Status),
    realm: &str,
) -> Result<(), Response> {
    let Some(expected) = &config.admin_password else {
        if config.development {
            return Ok(());
        }
        return Err(Response::text(403, "Forbidden: set ZERO_ADMIN_PASSWORD to use this page"));
    };
    let given = request.header("authorization").and_then(|header| {
        let encoded = header.strip_prefix("Basic ")?.trim().to_owned();
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        decoded.split_once(':').map(|(_, password)| password.to_owned())
    });
    // Browsers ask without a password first.
    match given.map(|given| status.judge(expected, &given, from, now())) {
        Some(Password::Right) => return Ok(()),
        Some(Password::TooMany) => {
            let wait = AGAIN_AFTER.as_secs().to_string();
            let refusal = Response::text(429, "Too many wrong passwords were given from this address");
            return Err(refusal.with_header("Retry-After", wait));
        }
        Some(Password::Wrong) | None => {}
    }
    let challenge = format!("Basic realm=\"{realm}\"");
    Err(Response::text(401, "Unauthorized").with_header("WWW-Authenticate", challenge))
}

async fn statz_page(query: &str, status: &Status) -> Response {
    let request = statz::Request::parse(query);
    let mut page = statz::Page::default();
    if request.wants("replication") {
        let rows = match status.gauges() {
            None => Err("the replica is not open yet".to_owned()),
            Some(gauges) => Ok(vec![
                ("lsn".to_owned(), json!(gauges.written().to_lsn())),
                ("durableLsn".to_owned(), json!(gauges.durable().to_lsn())),
                ("acknowledgedLsn".to_owned(), json!(gauges.acknowledged().to_lsn())),
            ]),
        };
        page.add("replication", rows);
    }
    if request.wants("replica") {
        let rows = match status.gauges() {
            None => Err("the replica is not open yet".to_owned()),
            Some(gauges) => Ok(vec![
                ("walBytes".to_owned(), json!(gauges.wal_bytes())),
                ("walBytesSynced".to_owned(), json!(gauges.synced_wal_bytes())),
                ("walRestarts".to_owned(), json!(gauges.wal_restarts())),
            ]),
        };
        page.add("replica", rows);
    }
    if request.wants("cores") {
        page.add("cores", Ok(exposition::summary(&registry::all())));
    }
    if request.wants("views") {
        page.add("views", views(status).await);
    }
    if request.wants("os") {
        page.add("os", Ok(os()));
    }
    let body = page.render(&request);
    Response { content_type: request.content_type(), ..Response::text(200, body) }
}

/// How long the cores are waited for: they look at what is asked of them five times a second.
const CORES_ANSWER: Duration = Duration::from_secs(1);

/// What the dearest views of each core are, hold and cost.
async fn views(status: &Status) -> Result<Vec<(String, serde_json::Value)>, String> {
    let question = status.ask_views();
    let until = now() + CORES_ANSWER;
    loop {
        if let Some(answers) = status.views(question) {
            return Ok(answers
                .into_iter()
                .map(|(core, views)| (format!("core{core}"), views.into()))
                .collect());
        }
        if now() > until {
            return Err("a core is too busy to answer".to_owned());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn os() -> Vec<(String, serde_json::Value)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("parallelism".to_owned(), json!(cores)),
        ("platform".to_owned(), json!(std::env::consts::OS)),
        ("arch".to_owned(), json!(std::env::consts::ARCH)),
        ("pid".to_owned(), json!(std::process::id())),
    ]
}
