//! Third stage: the values as a [`Config`], with everything that follows from several of them.

use std::path::PathBuf;
use std::time::Duration;

use super::app::{App, is_app_id, is_user_publication};
use super::error::ConfigError;
use super::option::Opt;
use super::postgres::PostgresUrl;
use super::settings::{
    Auth, ChangeStreamer, Compression, Config, InitialSync, JwtKey, LegacySchema, Log, Pool, RecordMode,
    Upstream, WebSocket,
};
use super::table::{app, auth, databases, engine, legacy, network, observability, replica, streamer};
use super::value::Value;
use super::values::Values;
use super::{Facts, endpoints};
use crate::auth::key::{Key, KeyError};
use crate::auth::secret::Secret;
use crate::model::logging::{Format, Level};
use crate::model::purging::Purging;

type Result<T> = std::result::Result<T, ConfigError>;

/// The shortest useful time slice.
const MIN_YIELD: Duration = Duration::from_millis(2);
/// Load balancers of AWS ECS call `/keepalive` far more often than this.
const ECS_KEEPALIVE: Duration = Duration::from_secs(20);
/// Stands for "as good as never": durations are clamped to it. About 136 years.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Makes the settings, or the error that ends start-up. Adds to the warnings of `values`.
pub fn validate(values: &mut Values, facts: &Facts) -> Result<Config> {
    refuse_what_is_gone(values)?;
    let upstream = upstream(values)?;
    let development = values.env("NODE_ENV") == Some("development");
    let admin_password = values.text(&auth::ADMIN_PASSWORD).map(Secret::new);
    if admin_password.is_none() && !development {
        values.warnings.push(
            "ZERO_ADMIN_PASSWORD is not set: /statz and the inspector answer 403. Set it to use them, or set \
             NODE_ENV=development on your own machine."
                .to_owned(),
        );
    }
    let port = port_of(values, &network::PORT).unwrap_or_default();
    let ecs_metadata_uri = values.env("ECS_CONTAINER_METADATA_URI_V4").map(str::to_owned);
    let task_id = values.text(&observability::TASK_ID);
    Ok(Config {
        app: app(values)?,
        record_mode: match values.text(&databases::CVR_LOG).as_deref() {
            Some("off") => RecordMode::Off,
            Some("synced") => RecordMode::Synced,
            _ => RecordMode::Written,
        },
        purging: purging(values)?,
        memory_budget: values.whole(&engine::MEMORY_BUDGET_MB).map(|mib| to_usize(mib) << 20),
        cvr: pool(values, &databases::CVR_DB, &databases::CVR_MAX_CONNS, &upstream.db)?,
        change: pool(values, &databases::CHANGE_DB, &databases::CHANGE_MAX_CONNS, &upstream.db)?,
        upstream,
        replica_file: PathBuf::from(values.text(&replica::REPLICA_FILE).unwrap_or_default()),
        port,
        change_streamer: change_streamer(values, port)?,
        num_sync_workers: match values.whole(&engine::NUM_SYNC_WORKERS) {
            Some(workers) => to_usize(workers),
            None => facts.cores.saturating_sub(1).max(1),
        },
        query: endpoints::query(values)?,
        mutate: endpoints::mutate(values)?,
        enable_crud_mutations: is_on(values, &super::table::api::ENABLE_CRUD_MUTATIONS),
        auth: auth_of(values)?,
        admin_password,
        development,
        websocket: websocket(values)?,
        initial_sync: InitialSync {
            table_copy_workers: to_usize(
                values.whole(&replica::INITIAL_SYNC_TABLE_COPY_WORKERS).unwrap_or(1),
            ),
            text_copy: is_on(values, &replica::INITIAL_SYNC_TEXT_COPY),
        },
        auto_reset: is_on(values, &replica::AUTO_RESET),
        lazy_startup: is_on(values, &engine::LAZY_STARTUP),
        lag_report_interval: millis_or_off(values, &replica::REPLICATION_LAG_REPORT_INTERVAL_MS),
        query_planner: is_on(values, &engine::ENABLE_QUERY_PLANNER),
        yield_threshold: millis(values, &engine::YIELD_THRESHOLD_MS).max(MIN_YIELD),
        keepalive_timeout: match values.given(&network::KEEPALIVE_TIMEOUT_MS) {
            Some(_) => millis_or_off(values, &network::KEEPALIVE_TIMEOUT_MS),
            None => ecs_metadata_uri.is_some().then_some(ECS_KEEPALIVE),
        },
        log: log(values),
        ecs_metadata_uri: ecs_metadata_uri.filter(|_| task_id.is_none()),
        task_id: task_id.unwrap_or_else(|| facts.random_id.clone()),
        server_version: values
            .text(&observability::SERVER_VERSION)
            .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        legacy_schema: legacy_schema(values),
    })
}

fn refuse_what_is_gone(values: &Values) -> Result<()> {
    if values.given(&legacy::SHARD_ID).is_some() {
        let name = values.name(&legacy::SHARD_ID);
        let message = format!(
            "{name} is no longer an option. Use ZERO_APP_ID: it names the app's schemas and slots, and \
             replaces the shard id."
        );
        return Err(ConfigError::plain(&name, message));
    }
    if values.text(&databases::UPSTREAM_TYPE).as_deref() == Some("custom") {
        let remedy = "Only Postgres is supported as upstream: remove it.";
        return Err(values.bad(&databases::UPSTREAM_TYPE, "custom", "is not supported", remedy));
    }
    Ok(())
}

fn upstream(values: &mut Values) -> Result<Upstream> {
    let Some(db) = postgres(values, &databases::UPSTREAM_DB)? else {
        let message = format!(
            "{} is required. Set it to the connection string of your Postgres, for example \
             postgres://user:password@db.example.com:5432/app.",
            databases::UPSTREAM_DB
        );
        return Err(ConfigError::plain("ZERO_UPSTREAM_DB", message));
    };
    let silence = values.whole(&databases::UPSTREAM_PG_STREAM_INBOUND_TIMEOUT_MS).filter(|ms| *ms > 0);
    Ok(Upstream {
        db,
        max_conns: connections(values, &databases::UPSTREAM_MAX_CONNS),
        connect_timeout: duration(values.number(&databases::UPSTREAM_CONNECT_TIMEOUT_SECONDS).unwrap_or(0.0)),
        slot_failover: is_on(values, &databases::UPSTREAM_PG_REPLICATION_SLOT_FAILOVER),
        stream_inbound_timeout: silence.map(|ms| Duration::from_millis(ms.unsigned_abs()).min(LONGEST)),
    })
}

fn postgres(values: &mut Values, opt: &Opt) -> Result<Option<PostgresUrl>> {
    let Some(text) = values.text(opt) else { return Ok(None) };
    match PostgresUrl::parse(&text, |name| values.env(name)) {
        Ok(url) => Ok(Some(url)),
        Err(problem) => {
            let remedy = "Give postgres://user:password@host:5432/dbname, with special characters of the \
                          password percent-encoded.";
            let error = values.bad(opt, &text, &problem, remedy);
            values.fail(opt, error).map(|()| None)
        }
    }
}

fn pool(values: &mut Values, db: &Opt, max_conns: &Opt, upstream: &PostgresUrl) -> Result<Pool> {
    let db = postgres(values, db)?.unwrap_or_else(|| upstream.clone());
    Ok(Pool { db, max_conns: connections(values, max_conns) })
}

/// A batch of no groups turns it off.
fn purging(values: &Values) -> Result<Option<Purging>> {
    let of = |opt: &Opt| match values.number(opt).unwrap_or_default() {
        number if number < 0.0 => {
            Err(values.bad(opt, &number.to_string(), "is less than nothing", "Give 0 or more."))
        }
        number => Ok(number),
    };
    let after = of(&databases::CVR_GARBAGE_COLLECTION_INACTIVITY_THRESHOLD_HOURS)? * 3_600_000.0;
    let interval = of(&databases::CVR_GARBAGE_COLLECTION_INITIAL_INTERVAL_SECONDS)? * 1_000.0;
    let batch = of(&databases::CVR_GARBAGE_COLLECTION_INITIAL_BATCH_SIZE)?.ceil() as usize;
    Ok((batch > 0).then_some(Purging { after, interval, batch }))
}

fn app(values: &mut Values) -> Result<App> {
    let id = values.text(&app::APP_ID).unwrap_or_default();
    if !is_app_id(&id) {
        let remedy = "Use lower-case letters, digits and underscores only.";
        return Err(values.bad(&app::APP_ID, &id, "is not an app id", remedy));
    }
    let opt = match values.given(&app::APP_PUBLICATIONS) {
        Some(_) => &app::APP_PUBLICATIONS,
        None => &legacy::SHARD_PUBLICATIONS,
    };
    let mut publications: Vec<String> = Vec::new();
    for name in values.list(opt).unwrap_or_default() {
        if !is_user_publication(&name) {
            let remedy = "Use letters, digits and underscores, at most 63, beginning with a letter.";
            return Err(values.bad(opt, &name, "is not a name of a publication", remedy));
        }
        if !publications.contains(&name) {
            publications.push(name);
        }
    }
    let shard_num = values.whole(&app::SHARD_NUM).and_then(|num| u32::try_from(num).ok()).unwrap_or_default();
    Ok(App { id, publications, shard_num })
}

fn change_streamer(values: &mut Values, port: u16) -> Result<ChangeStreamer> {
    let own_port = match (port_of(values, &network::CHANGE_STREAMER_PORT), port) {
        (Some(own), _) => own,
        // Port 0 is the system's choice, and the next one would be no choice at all.
        (None, 0) => 0,
        (None, port) => port.checked_add(1).ok_or_else(|| {
            let remedy = "Choose a smaller port, or set ZERO_CHANGE_STREAMER_PORT.";
            values.bad(&network::PORT, &port.to_string(), "leaves no next port for the change stream", remedy)
        })?,
    };
    let uri = match values.text(&streamer::CHANGE_STREAMER_URI) {
        Some(text) => {
            web_url(values, &streamer::CHANGE_STREAMER_URI, &text, &["http", "https", "ws", "wss"])?
        }
        None => None,
    };
    Ok(ChangeStreamer {
        port: own_port,
        uri,
        discover: values.text(&streamer::CHANGE_STREAMER_MODE).as_deref() == Some("discover"),
        startup_delay: millis(values, &streamer::CHANGE_STREAMER_STARTUP_DELAY_MS),
    })
}

fn web_url(values: &mut Values, opt: &Opt, text: &str, schemes: &[&str]) -> Result<Option<url::Url>> {
    match url::Url::parse(text) {
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Ok(Some(url)),
        _ => {
            let remedy = format!("Give a URL that begins with {}://.", schemes.join(":// or "));
            let error = values.bad(opt, text, "is not such a URL", &remedy);
            values.fail(opt, error).map(|()| None)
        }
    }
}

fn auth_of(values: &mut Values) -> Result<Auth> {
    let secret = match values.given(&auth::AUTH_SECRET) {
        Some(_) => &auth::AUTH_SECRET,
        None => &legacy::JWT_SECRET,
    };
    let keys = [secret, &auth::AUTH_JWK, &auth::AUTH_JWKS_URL];
    let given: Vec<&Opt> = keys.into_iter().filter(|opt| values.given(opt).is_some()).collect();
    if let [first, second, ..] = given[..] {
        let (first, second) = (values.name(first), values.name(second));
        let message =
            format!("{first} and {second} are both set. Tokens are verified with one key: remove one.");
        return Err(ConfigError::plain(&second, message));
    }
    let key = if let Some(text) = values.text(secret) {
        Some(JwtKey::Secret(Secret::new(text)))
    } else if let Some(text) = values.text(&auth::AUTH_JWK) {
        let jwk = serde_json::from_str(&text).map_err(|_| KeyError::Malformed);
        match jwk.and_then(|jwk| Key::from_jwk(&jwk)) {
            Ok(key) => Some(JwtKey::Jwk(Box::new(key))),
            Err(problem) => {
                let remedy = "Give the public JSON Web Key of the signer, such as {\"kty\":\"RSA\", …}.";
                return Err(values.bad(&auth::AUTH_JWK, &text, &problem.to_string(), remedy));
            }
        }
    } else if let Some(text) = values.text(&auth::AUTH_JWKS_URL) {
        web_url(values, &auth::AUTH_JWKS_URL, &text, &["http", "https"])?.map(JwtKey::JwksUrl)
    } else {
        None
    };
    Ok(Auth {
        key,
        issuer: values.text(&auth::AUTH_ISSUER),
        audience: values.text(&auth::AUTH_AUDIENCE),
        revalidate_interval: seconds_or_off(values, &auth::AUTH_REVALIDATE_INTERVAL_SECONDS),
        retransform_interval: seconds_or_off(values, &auth::AUTH_RETRANSFORM_INTERVAL_SECONDS),
    })
}

fn websocket(values: &mut Values) -> Result<WebSocket> {
    let opt = &network::WEBSOCKET_COMPRESSION_OPTIONS;
    let options = match values.text(opt) {
        None => Compression::default(),
        Some(text) => match Compression::parse(&text) {
            Ok(options) => options,
            Err(problem) => {
                let remedy = "Give a JSON object, for example {\"threshold\": 1024}.";
                let error = values.bad(opt, &text, &problem, remedy);
                values.fail(opt, error)?;
                Compression::default()
            }
        },
    };
    let on = is_on(values, &network::WEBSOCKET_COMPRESSION);
    Ok(WebSocket {
        max_payload_bytes: to_usize(values.whole(&network::WEBSOCKET_MAX_PAYLOAD_BYTES).unwrap_or_default()),
        compression: on.then_some(options),
    })
}

fn log(values: &Values) -> Log {
    let level =
        match (values.given(&observability::LOG_LEVEL), values.env("LOG_LEVEL").and_then(Level::parse)) {
            (Some(Value::Text(text)), _) => Level::parse(text),
            (_, fallback) => fallback,
        };
    let json = values.text(&observability::LOG_FORMAT).as_deref() == Some("json");
    Log {
        level: level.unwrap_or(Level::Info),
        format: if json { Format::Json } else { Format::Text },
        slow_row: millis(values, &observability::LOG_SLOW_ROW_THRESHOLD),
        slow_hydrate: millis(values, &observability::LOG_SLOW_HYDRATE_THRESHOLD),
    }
}

fn legacy_schema(values: &Values) -> Option<LegacySchema> {
    let json = values.text(&legacy::SCHEMA_JSON).map(|text| LegacySchema::Json(Secret::new(text)));
    json.or_else(|| values.text(&legacy::SCHEMA_FILE).map(|path| LegacySchema::File(PathBuf::from(path))))
}

fn is_on(values: &Values, opt: &Opt) -> bool {
    values.boolean(opt).unwrap_or_default()
}

fn port_of(values: &Values, opt: &Opt) -> Option<u16> {
    values.whole(opt).and_then(|port| u16::try_from(port).ok())
}

/// A limit of 0 would allow nothing to be done: limits bound the pool, they never forbid it (ruling 27).
fn connections(values: &Values, opt: &Opt) -> usize {
    to_usize(values.whole(opt).unwrap_or(1)).max(1)
}

fn to_usize(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// Negative and endless numbers of seconds are clamped.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST).min(LONGEST)
}

fn millis(values: &Values, opt: &Opt) -> Duration {
    duration(values.number(opt).unwrap_or_default() / 1e3)
}

fn millis_or_off(values: &Values, opt: &Opt) -> Option<Duration> {
    Some(millis(values, opt)).filter(|time| !time.is_zero())
}

fn seconds_or_off(values: &Values, opt: &Opt) -> Option<Duration> {
    Some(duration(values.number(opt).unwrap_or_default())).filter(|time| !time.is_zero())
}
