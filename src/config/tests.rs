//! What an operator can get wrong, and what must go on working.

use crate::auth::secret::Secret;
use std::time::Duration;

use super::option::{Status, Visibility};
use super::*;

const DB: (&str, &str) = ("ZERO_UPSTREAM_DB", "postgres://alice:hunter2@db/app");

fn facts() -> Facts {
    Facts { cores: 8, random_id: "random".to_owned() }
}

/// With `flags` (split at blanks), the variables of `env`, and `dotenv`.
fn outcome(flags: &str, env: &[(&str, &str)], dotenv: &str) -> Result<Outcome, ConfigError> {
    let args = flags.split_whitespace().map(str::to_owned);
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(args, env, Some(dotenv), &facts())
}

fn parsed(flags: &str, env: &[(&str, &str)]) -> Parsed {
    let env: Vec<_> = [DB].into_iter().chain(env.iter().copied()).collect();
    match outcome(flags, &env, "") {
        Ok(Outcome::Run(parsed)) => *parsed,
        other => panic!("{other:?}"),
    }
}

fn config(flags: &str, env: &[(&str, &str)]) -> Config {
    parsed(flags, env).config
}

fn error(flags: &str, env: &[(&str, &str)]) -> String {
    let env: Vec<_> = [DB].into_iter().chain(env.iter().copied()).collect();
    outcome(flags, &env, "").expect_err("should be refused").to_string()
}

#[test]
fn flag_beats_environment_beats_dotenv_beats_default() {
    let port = |flags: &str, env: &[(&str, &str)], dotenv: &str| {
        let env: Vec<_> = [DB].into_iter().chain(env.iter().copied()).collect();
        match outcome(flags, &env, dotenv) {
            Ok(Outcome::Run(parsed)) => parsed.config.port,
            other => panic!("{other:?}"),
        }
    };
    let env = [("ZERO_PORT", "2")];
    assert_eq!(port("--port 1", &env, "ZERO_PORT=3"), 1);
    assert_eq!(port("", &env, "ZERO_PORT=3"), 2);
    assert_eq!(port("", &[], "ZERO_PORT=3"), 3);
    assert_eq!(port("", &[("ZERO_PORT", "")], ""), 4848);
    // Unset in the environment, so the file may set it.
    assert_eq!(port("", &[("ZERO_PORT", "")], "ZERO_PORT=3"), 3);
}

#[test]
fn flags_take_values_in_every_form() {
    let config = config(
        "--port=5 --lazy-startup --auto-reset false --app-publications a b --admin-password -x- \
         --app-publications c --websocket-compression",
        &[],
    );
    assert_eq!((config.port, config.lazy_startup, config.auto_reset), (5, true, false));
    assert_eq!(config.app.publications, ["a", "b", "c"]);
    assert_eq!(config.admin_password, Some(Secret::new("-x-")));
    assert!(config.websocket.compression.is_some());
}

#[test]
fn a_list_of_flags_replaces_the_one_of_the_environment() {
    let config = config("--app-publications a", &[("ZERO_APP_PUBLICATIONS", "b, c")]);
    assert_eq!(config.app.publications, ["a"]);
}

#[test]
fn a_flag_that_cannot_be_read_is_refused() {
    assert!(error("--port", &[]).contains("--port needs a value"));
    assert!(error("--port 1 --port 2", &[]).contains("given twice"));
    assert!(error("--auto-reset maybe", &[]).contains("Give true or false"));
    let message = error("--prot 1", &[]);
    assert!(message.contains("--prot") && message.contains("Did you mean --port?"), "{message}");
    assert!(error("--upstreamDb x", &[]).contains("--upstream-db"));
    assert!(error("serve", &[]).contains("Unknown argument serve"));
}

#[test]
fn a_bad_value_is_named_with_its_option_and_the_remedy() {
    let message = error("", &[("ZERO_PORT", "abc")]);
    assert_eq!(
        message,
        "ZERO_PORT=\"abc\" is not accepted. Give a whole number from 0 to 65535 (default: 4848)."
    );
    for (name, value, part) in [
        ("ZERO_PORT", "65536", "65535"),
        ("ZERO_LOG_LEVEL", "INFO", "debug or info or warn or error"),
        ("ZERO_APP_ID", "Foo-Bar", "lower-case letters"),
        ("ZERO_APP_PUBLICATIONS", "_mine", "beginning with a letter"),
        ("ZERO_NUM_SYNC_WORKERS", "1.5", "whole number"),
        ("ZERO_KEEPALIVE_TIMEOUT_MS", "30_000", "Give a number"),
        ("ZERO_AUTO_RESET", "yes", "true or false"),
        ("ZERO_QUERY_URL", "not a url", "whole URLs"),
        ("ZERO_MUTATE_URL", "/api/mutate", "whole URLs"),
        ("ZERO_AUTH_JWK", "x", "JSON Web Key"),
        ("ZERO_SHARD_ID", "0", "ZERO_APP_ID"),
        ("ZERO_UPSTREAM_TYPE", "custom", "not supported"),
    ] {
        let message = error("", &[(name, value)]);
        assert!(message.contains(name) && message.contains(part), "{message}");
    }
}

#[test]
fn a_missing_database_says_what_to_set() {
    for env in [&[][..], &[("ZERO_UPSTREAM_DB", "")]] {
        let message = outcome("", env, "").unwrap_err().to_string();
        assert!(message.contains("ZERO_UPSTREAM_DB (--upstream-db) is required"), "{message}");
        assert!(message.contains("postgres://user:password@"), "{message}");
    }
}

#[test]
fn a_bad_connection_string_is_not_repeated() {
    let message = outcome("", &[("ZERO_UPSTREAM_DB", "mysql://u:hunter2@h/d")], "").unwrap_err().to_string();
    assert!(message.contains("ZERO_UPSTREAM_DB=(hidden)") && !message.contains("hunter2"), "{message}");
}

#[test]
fn defaults_are_those_of_the_specification() {
    let config = config("", &[]);
    assert_eq!((config.port, config.change_streamer.port, config.num_sync_workers), (4848, 4849, 7));
    assert_eq!((config.app.id.as_str(), config.app.shard_schema().as_str()), ("zero", "zero_0"));
    assert_eq!(config.replica_file.to_str(), Some("zero.db"));
    assert_eq!(config.cvr.db, config.upstream.db);
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(30));
    assert_eq!(config.upstream.max_conns, 20);
    assert_eq!(config.auth.revalidate_interval, Some(Duration::from_secs(300)));
    assert_eq!(config.websocket.max_payload_bytes, 10 * 1024 * 1024);
    assert_eq!(config.websocket.compression, None);
    assert_eq!(config.yield_threshold, Duration::from_millis(10));
    assert_eq!(config.keepalive_timeout, None);
    assert_eq!(config.log.slow_hydrate, Duration::from_millis(100));
    assert_eq!(config.task_id, "random");
    assert!(config.auto_reset && config.enable_crud_mutations && !config.development);
    assert_eq!(config.role(), Role::SingleNode);
}

#[test]
fn derived_values_follow_what_they_depend_on() {
    let one = config("--port 5000", &[("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")]);
    assert_eq!(one.change_streamer.port, 5001);
    assert_eq!(one.keepalive_timeout, Some(Duration::from_secs(20)));
    assert!(one.ecs_metadata_uri.is_some());
    assert!(error("--port 65535", &[]).contains("ZERO_CHANGE_STREAMER_PORT"));
    assert_eq!(config("--port 0", &[]).change_streamer.port, 0);
    assert_eq!(config("--num-sync-workers 0", &[]).role(), Role::ReplicationManager);
    assert_eq!(config("--change-streamer-uri http://rm", &[]).role(), Role::ViewSyncer);
    let single_core = Facts { cores: 1, random_id: String::new() };
    let env = [(DB.0.to_owned(), DB.1.to_owned())];
    match parse([], env, None, &single_core) {
        Ok(Outcome::Run(parsed)) => assert_eq!(parsed.config.num_sync_workers, 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn zero_or_less_turns_intervals_off_and_limits_never_forbid() {
    let config = config(
        "--auth-revalidate-interval-seconds 0 --auth-retransform-interval-seconds -1 \
         --replication-lag-report-interval-ms -5 --keepalive-timeout-ms 0 --yield-threshold-ms 0.5 \
         --upstream-max-conns 0 --upstream-connect-timeout-seconds 1e300",
        &[("ECS_CONTAINER_METADATA_URI_V4", "x")],
    );
    assert_eq!((config.auth.revalidate_interval, config.auth.retransform_interval), (None, None));
    assert_eq!((config.lag_report_interval, config.keepalive_timeout), (None, None));
    assert_eq!(config.yield_threshold, Duration::from_millis(2));
    assert_eq!(config.upstream.max_conns, 1);
    assert!(config.upstream.connect_timeout > Duration::from_secs(1 << 30));
}

#[test]
fn old_names_of_the_mutate_endpoint() {
    let old = [
        ("ZERO_PUSH_URL", "https://old/push"),
        ("ZERO_PUSH_API_KEY", "old"),
        ("ZERO_PUSH_FORWARD_COOKIES", "true"),
        ("ZERO_PUSH_ALLOWED_CLIENT_HEADERS", "X-A, x-b"),
    ];
    let first = parsed("", &old);
    let mutate = &first.config.mutate;
    assert_eq!(mutate.default_url(), Some("https://old/push"));
    assert_eq!(mutate.api_key, Some(Secret::new("old")));
    assert!(mutate.forward_cookies);
    assert_eq!(mutate.allowed_client_headers, ["x-a", "x-b"]);
    assert_eq!(first.warnings.iter().filter(|line| line.contains("deprecated")).count(), 4);

    let mut both = old.to_vec();
    both.extend([
        ("ZERO_MUTATE_URL", "https://new/mutate"),
        ("ZERO_MUTATE_API_KEY", "new"),
        ("ZERO_MUTATE_FORWARD_COOKIES", "false"),
    ]);
    let second = parsed("", &both);
    let mutate = &second.config.mutate;
    assert_eq!(mutate.default_url(), Some("https://old/push"), "as the reference");
    assert_eq!((mutate.api_key.clone(), mutate.forward_cookies), (Some(Secret::new("new")), false));
    assert!(second.warnings.iter().any(|line| line.contains("ZERO_PUSH_URL and ZERO_MUTATE_URL differ")));
}

#[test]
fn old_names_of_the_query_endpoint_are_used_only_without_the_new_url() {
    let old = [("ZERO_GET_QUERIES_URL", "https://old/q"), ("ZERO_GET_QUERIES_API_KEY", "old")];
    let query = config("", &old).query;
    assert_eq!(query.default_url(), Some("https://old/q"));
    assert_eq!(query.api_key, Some(Secret::new("old")));
    let query = config("--query-url https://new/q", &old).query;
    assert_eq!(query.default_url(), Some("https://new/q"));
    assert_eq!(query.api_key, None);
    let query = config("", &[("ZERO_PULL_URL", "https://older/q")]).query;
    assert_eq!(query.default_url(), Some("https://older/q"));
}

#[test]
fn other_old_names() {
    let config =
        config("", &[("ZERO_SHARD_PUBLICATIONS", "a,b"), ("ZERO_JWT_SECRET", "s"), ("LOG_LEVEL", "debug")]);
    assert_eq!(config.app.publications, ["a", "b"]);
    assert!(matches!(&config.auth.key, Some(JwtKey::Secret(secret)) if secret.expose() == "s"));
    assert_eq!(config.log.level, crate::model::logging::Level::Debug);
    let config =
        self::config("", &[("ZERO_LOG_LEVEL", "warn"), ("LOG_LEVEL", "debug"), ("ZERO_SCHEMA_JSON", "{}")]);
    assert_eq!(config.log.level, crate::model::logging::Level::Warn);
    assert!(matches!(config.legacy_schema, Some(LegacySchema::Json(_))));
    assert_eq!(self::config("", &[("LOG_LEVEL", "verbose")]).log.level, crate::model::logging::Level::Info);
}

#[test]
fn two_keys_for_tokens_are_refused() {
    let message = error("--auth-secret a", &[("ZERO_AUTH_JWKS_URL", "https://x/keys")]);
    assert!(message.contains("--auth-secret") && message.contains("ZERO_AUTH_JWKS_URL"), "{message}");
}

#[test]
fn an_unknown_variable_is_one_warning_with_the_nearest_name() {
    let parsed = parsed(
        "",
        &[
            ("ZERO_UPSTREM_MAX_CONNS", "5"),
            ("ZERO_IMAGE_URL", "x"),
            ("ZERO_PG_SOCKET_INACTIVITY_TIMEOUT", "0"),
            ("ZERO_CACHE_PORT_4848_TCP_ADDR", "10.0.0.1"),
            ("NOT_OURS", "x"),
        ],
    );
    let unknown: Vec<_> = parsed.warnings.iter().filter(|line| line.contains("not a known")).collect();
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert!(unknown[0].contains("Did you mean ZERO_UPSTREAM_MAX_CONNS?"), "{unknown:?}");
}

#[test]
fn what_has_no_effect_is_said_once_and_never_refused() {
    let result = parsed(
        "",
        &[
            ("ZERO_CVR_DB", "nonsense"),
            ("ZERO_CVR_MAX_CONNS", "10"),
            ("ZERO_CHANGE_MAX_CONNS", "5"),
            ("ZERO_LITESTREAM_BACKUP_URL", "s3://b/p"),
            ("ZERO_LITESTREAM_EXECUTABLE", "/bin/litestream"),
            ("ZERO_CHANGE_STREAMER_STARTUP_DELAY_MS", "soon"),
            ("ZERO_ADMIN_PASSWORD", "x"),
        ],
    );
    assert_eq!(result.config.cvr.db, result.config.upstream.db);
    let notes: Vec<_> = result.notes.iter().filter(|line| line.contains("ZERO_CVR")).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("ZERO_CVR_DB, ZERO_CVR_MAX_CONNS"), "{notes:?}");
    // The default, so there is nothing to say.
    assert!(!result.notes.iter().any(|line| line.contains("ZERO_CHANGE_MAX_CONNS")));
    assert!(result.warnings.iter().any(|line| line.contains("ZERO_LITESTREAM_BACKUP_URL")));
    assert!(result.warnings.iter().any(|line| line.contains("STARTUP_DELAY_MS=\"soon\"")));
    assert!(result.debug.iter().any(|line| line.contains("ZERO_LITESTREAM_EXECUTABLE")));
}

#[test]
fn every_option_is_accepted_with_its_default_and_with_nonsense_unless_it_acts() {
    for opt in table::all().filter(|opt| !opt.required && opt.path != "shard.id") {
        if let Some(default) = opt.default {
            let quiet = parsed("", &[(&opt.env(), default)]);
            assert!(quiet.notes.is_empty() && quiet.debug.is_empty(), "{opt}: {quiet:?}");
        }
        if opt.status != Status::Used {
            parsed("", &[(&opt.env(), "nonsense")]);
        }
    }
}

#[test]
fn no_admin_password_is_one_warning_in_production() {
    let about =
        |parsed: Parsed| parsed.warnings.iter().filter(|line| line.contains("ADMIN_PASSWORD")).count();
    assert_eq!(about(parsed("", &[])), 1);
    assert_eq!(about(parsed("", &[("NODE_ENV", "development")])), 0);
    assert_eq!(about(parsed("--admin-password x", &[])), 0);
}

#[test]
fn url_patterns_allow_what_they_say() {
    let url = "https://*.example.com/api/:name,http://localhost:3000/q?k=v";
    let query = config("", &[("ZERO_QUERY_URL", url)]).query;
    for allowed in [
        "https://a.example.com/api/query",
        "https://a.b.example.com/api/query?x=1#y",
        "http://localhost:3000/q",
        "http://localhost:3000/q?k=other",
    ] {
        assert!(query.allows(allowed), "{allowed}");
    }
    for refused in [
        "https://example.org/api/query",
        "https://a.example.com/api/query/more",
        "http://a.example.com/api/query",
        "http://localhost:3001/q",
        "https://a.example.com.evil.org/api/query",
        "not a url",
        "",
    ] {
        assert!(!query.allows(refused), "{refused}");
    }
}

#[test]
fn the_url_that_is_called_names_the_app_and_must_not_do_so_itself() {
    let config = config("--query-url https://a.com/q?x=1 --query-url https://*.b.com/q --app-id shop", &[]);
    let target = |asked| config.query.target(asked, &config.app).map(String::from);
    let default = "https://a.com/q?x=1&schema=shop_0&appID=shop";
    assert_eq!(target(None).as_deref(), Ok(default));
    assert_eq!(target(Some("")).as_deref(), Ok(default));
    assert_eq!(
        target(Some("https://x.b.com/q")).as_deref(),
        Ok("https://x.b.com/q?schema=shop_0&appID=shop")
    );
    let shown = "https://a.com/q".to_owned();
    let reserved = target(Some("https://a.com/q?appID=other"));
    assert_eq!(reserved, Err(UrlRefused::Reserved(shown, "appID")), "without what may be a secret");
    assert!(matches!(target(Some("https://c.com/q")), Err(UrlRefused::NotAllowed(_))));
    assert_eq!(config.mutate.target(None, &config.app), Err(UrlRefused::NotConfigured));
}

#[test]
fn compression_options_of_node() {
    let options = r#"{"threshold":2048,"zlibDeflateOptions":{"level":3},"serverNoContextTakeover":true}"#;
    let config = config("--websocket-compression", &[("ZERO_WEBSOCKET_COMPRESSION_OPTIONS", options)]);
    assert_eq!(config.websocket.compression, Some(Compression { threshold_bytes: 2048, level: Some(3) }));
}

#[test]
fn secrets_are_not_in_debug() {
    let parsed = parsed(
        "--admin-password hunter2 --mutate-api-key hunter2 --auth-secret hunter2",
        &[
            ("ZERO_CVR_DB", "postgres://u:hunter2@h/d"),
            ("ZERO_SCHEMA_JSON", "hunter2"),
            ("ZERO_QUERY_API_KEY", "hunter2"),
        ],
    );
    assert!(!format!("{parsed:?}").contains("hunter2"));
    assert!(Secret::new("hunter2").matches("hunter2"));
    for other in ["", "hunter", "hunter22", "Hunter2"] {
        assert!(!Secret::new("hunter2").matches(other), "{other}");
    }
}

#[test]
fn settings_can_be_shared_by_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Config>();
}

#[test]
fn names_are_unique_and_defaults_are_of_their_type() {
    let mut names: Vec<String> = table::all().flat_map(|opt| [opt.env(), opt.flag()]).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    for opt in table::all() {
        assert!(opt.doc.ends_with('.') && !opt.doc.contains("  "), "{opt}: {:?}", opt.doc);
        assert_eq!(value::default_of(opt).is_some(), opt.default.is_some(), "{opt}");
    }
}

#[test]
fn help_lists_every_visible_option_once_within_80_columns() {
    let help = help();
    for opt in table::all() {
        let flag = opt.flag();
        let is_it = |word: &str| word.trim_end_matches([',', ' ', '.']) == flag;
        let heads = help.lines().filter(|line| line.starts_with(&format!("  {flag} "))).count();
        let listed = help
            .split("Accepted and ignored:")
            .skip(1)
            .filter(|rest| rest.split("\n\n").next().unwrap_or_default().split_whitespace().any(is_it))
            .count();
        let expected = usize::from(opt.visibility == Visibility::Visible);
        assert_eq!(heads + listed, expected, "{opt}");
    }
    for line in help.lines().filter(|line| line.split_whitespace().count() > 1) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(matches!(outcome("--port x --help", &[], ""), Ok(Outcome::Help(_))));
    assert!(matches!(outcome("-V", &[], ""), Ok(Outcome::Version)));
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");

#[test]
fn the_settings_page_is_up_to_date() {
    if std::env::var_os("KELVIN_WRITE_SETTINGS").is_some() {
        std::fs::write(PAGE, settings_page()).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(page == settings_page(), "run: KELVIN_WRITE_SETTINGS=1 cargo test --lib settings_page");
}
