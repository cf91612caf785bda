//! Connection strings of Postgres (`docs/spec/config-ops.md` §2.3).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::auth::secret::Secret;

/// How a connection uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// When the server offers it; the certificate is not verified.
    Prefer,
    /// Always; the certificate is not verified, unless authorities are named.
    Require,
    /// Always; the certificate is never verified.
    NoVerify,
    /// Always; the certificate is verified, for whatever host.
    VerifyCa,
    /// Always; the certificate and the host name are verified.
    VerifyFull,
}

/// Value of `sslrootcert` for the authorities that everybody trusts.
const SYSTEM: &str = "system";

/// A parsed connection string. Neither `Debug` nor `Display` shows the password or the options.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Host name, IP address (without brackets), or the directory of a Unix socket (starts with `/`).
    pub host: String,
    /// TCP port, or the number in the name of the Unix socket.
    pub port: u16,
    /// User name.
    pub user: String,
    /// Password, if any.
    pub password: Option<Secret>,
    /// Database name.
    pub database: String,
    /// From `sslmode` or `ssl`; without them `Prefer`.
    pub ssl: SslMode,
    /// File (PEM) with the certificates that are trusted, from `sslrootcert` or `PGSSLROOTCERT`; `None`: those of the
    /// authorities that everybody trusts.
    pub root_certificates: Option<PathBuf>,
    /// Limit for one attempt to connect, from `connect_timeout` or `PGCONNECT_TIMEOUT`.
    pub connect_timeout: Option<Duration>,
    /// The parameters of the query string that are not fields here (`options`, `application_name`, …).
    pub options: Vec<(String, String)>,
}

impl PostgresUrl {
    /// Parses `text`; what it leaves out comes from the libpq variables that `env` has, then from
    /// libpq's defaults. The error says what is wrong, without repeating the text.
    pub fn parse<'a>(text: &str, env: impl Fn(&str) -> Option<&'a str>) -> Result<PostgresUrl, String> {
        let url = Url::parse(text.trim()).map_err(|error| format!("is not a connection string ({error})"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("starts with {}://, not postgres://", url.scheme()));
        }
        let or = |own: String, name: &str, default: &str| match own.is_empty() {
            true => env(name).unwrap_or(default).to_owned(),
            false => own,
        };
        let user = or(decode(url.username())?, "PGUSER", "postgres");
        let password = match url.password() {
            Some(text) => Some(decode(text)?),
            None => env("PGPASSWORD").map(str::to_owned),
        };
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = match (url.port(), env("PGPORT")) {
            (Some(port), _) => port,
            (None, Some(text)) => {
                text.parse().map_err(|_| format!("has no port, and PGPORT={text} is not one"))?
            }
            (None, None) => 5432,
        };
        let mut parsed = PostgresUrl {
            host: or(decode(host)?, "PGHOST", "localhost"),
            port,
            database: or(decode(url.path().trim_start_matches('/'))?, "PGDATABASE", &user),
            user,
            password: password.filter(|text| !text.is_empty()).map(Secret::new),
            ssl: SslMode::Prefer,
            root_certificates: None,
            connect_timeout: env("PGCONNECT_TIMEOUT").and_then(seconds),
            options: Vec::new(),
        };
        parsed.parameters(&url, env("PGSSLROOTCERT"))?;
        if parsed.host.contains(',') {
            return Err("lists several hosts; one is supported".to_owned());
        }
        Ok(parsed)
    }

    fn parameters(&mut self, url: &Url, default_roots: Option<&str>) -> Result<(), String> {
        let mut roots = default_roots.map(str::to_owned);
        let mut ssl = None;
        let mut sslmode = None;
        for (name, value) in url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())) {
            match name.as_str() {
                "ssl" => ssl = Some(value),
                "sslmode" => sslmode = Some(value),
                "sslrootcert" => roots = Some(value),
                "host" => self.host = value,
                "port" => {
                    self.port = value.parse().map_err(|_| "has a port that is not a number".to_owned())?
                }
                "connect_timeout" => self.connect_timeout = seconds(&value),
                _ => self.options.push((name, value)),
            }
        }
        let mode = ssl.or(sslmode);
        if let Some(text) = &mode {
            self.ssl = ssl_mode(text)?;
        }
        self.trust(roots.filter(|path| !path.is_empty()), mode.is_some())
    }

    /// Whom to trust, as libpq: who names authorities wants them asked.
    fn trust(&mut self, roots: Option<String>, has_mode: bool) -> Result<(), String> {
        match (roots, self.ssl) {
            (Some(roots), _) if roots == SYSTEM => {
                if has_mode && self.ssl != SslMode::VerifyFull {
                    return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
                }
                self.ssl = SslMode::VerifyFull;
            }
            (Some(roots), mode) => {
                self.root_certificates = Some(PathBuf::from(roots));
                if mode == SslMode::Require {
                    self.ssl = SslMode::VerifyCa;
                }
            }
            // Of the authorities that everybody trusts anybody may have a certificate, for his own host.
            (None, SslMode::VerifyCa) => self.ssl = SslMode::VerifyFull,
            (None, _) => {}
        }
        Ok(())
    }
}

/// `prefer`, `allow` and `require` do not verify, as in the reference's client library; `require` does when authorities
/// are named, and `no-verify` never.
fn ssl_mode(text: &str) -> Result<SslMode, String> {
    match text {
        "disable" | "false" => Ok(SslMode::Disable),
        "prefer" | "allow" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "no-verify" => Ok(SslMode::NoVerify),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" | "true" => Ok(SslMode::VerifyFull),
        _ => Err(format!(
            "has sslmode={text}, which is not one of disable, no-verify, allow, prefer, require, verify-ca, \
             verify-full"
        )),
    }
}

/// 0 means no limit, as in libpq.
fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn decode(text: &str) -> Result<String, String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("has a percent-encoded part that is not UTF-8".to_owned()),
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self}, {:?})", self.ssl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(text, |_| None)
    }

    #[test]
    fn every_part_is_read_and_decoded() {
        let url =
            parse("postgres://us%40er:p%2Fa%23ss@[::1]:6432/my%20db?sslmode=require&application_name=x")
                .unwrap();
        assert_eq!((url.host.as_str(), url.port, url.user.as_str()), ("::1", 6432, "us@er"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p/a#ss"));
        assert_eq!((url.database.as_str(), url.ssl), ("my db", SslMode::Require));
        assert_eq!(url.options, [("application_name".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn what_is_left_out_comes_from_libpq() {
        let url = parse("postgresql://alice@db").unwrap();
        assert_eq!((url.port, url.database.as_str(), url.ssl), (5432, "alice", SslMode::Prefer));
        assert_eq!(url.password, None);
        let env = |name: &str| match name {
            "PGPASSWORD" => Some("secret"),
            "PGPORT" => Some("7000"),
            "PGCONNECT_TIMEOUT" => Some("7"),
            _ => None,
        };
        let url = PostgresUrl::parse("postgres:///app?host=/run/postgresql", env).unwrap();
        assert_eq!((url.host.as_str(), url.port, url.user.as_str()), ("/run/postgresql", 7000, "postgres"));
        assert_eq!(url.password, Some(Secret::new("secret")));
        assert_eq!(url.connect_timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn ssl_wins_over_sslmode() {
        assert_eq!(parse("postgres://h/d?sslmode=require&ssl=false").unwrap().ssl, SslMode::Disable);
        for (text, mode) in [("no-verify", SslMode::NoVerify), ("verify-full", SslMode::VerifyFull)] {
            assert_eq!(parse(&format!("postgres://h/d?sslmode={text}")).unwrap().ssl, mode);
        }
        assert!(parse("postgres://h/d?sslmode=maybe").is_err());
    }

    #[test]
    fn authorities_that_are_named_are_asked_as_libpq_does() {
        let mode = |query: &str, env: Option<&'static str>| {
            let url = format!("postgres://h/d?{query}");
            let env = |name: &str| env.filter(|_| name == "PGSSLROOTCERT");
            PostgresUrl::parse(&url, env).map(|url| (url.ssl, url.root_certificates))
        };
        let ca = Some(PathBuf::from("/ca.pem"));
        let named = "sslrootcert=/ca.pem";
        assert_eq!(mode("sslmode=verify-full", None), Ok((SslMode::VerifyFull, None)));
        assert_eq!(
            mode("sslmode=verify-ca", None),
            Ok((SslMode::VerifyFull, None)),
            "stricter than it was asked"
        );
        assert_eq!(mode("sslmode=require", None), Ok((SslMode::Require, None)));
        for (text, expected) in [
            ("verify-full", SslMode::VerifyFull),
            ("verify-ca", SslMode::VerifyCa),
            ("require", SslMode::VerifyCa),
            ("no-verify", SslMode::NoVerify),
            ("prefer", SslMode::Prefer),
        ] {
            assert_eq!(mode(&format!("sslmode={text}&{named}"), None), Ok((expected, ca.clone())));
            assert_eq!(mode(&format!("sslmode={text}"), Some("/ca.pem")), Ok((expected, ca.clone())));
        }
        assert_eq!(mode(named, Some("/other.pem")), Ok((SslMode::Prefer, ca)), "the string comes first");
        assert_eq!(mode("sslrootcert=system", None), Ok((SslMode::VerifyFull, None)));
        assert!(mode("sslrootcert=system&sslmode=require", None).is_err());
    }

    #[test]
    fn what_is_no_connection_string_is_refused() {
        for text in ["db.example.com", "mysql://h/d", "postgres://a,b/d", "postgres://h:port/d", ""] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_form_of_printing_shows_the_password() {
        let url = parse("postgres://u:hunter2@h/d?options=-c%20x%3Dhunter2").unwrap();
        assert!(!format!("{url} {url:?} {:?}", url.password).contains("hunter2"));
    }
}
