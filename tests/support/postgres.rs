//! A Postgres server for tests: one per process, a database per test.
//!
//! Binaries come from `PG_BIN`, else `/usr/lib/postgresql/*/bin`, else the `PATH`. The
//! server listens on a free port of the loopback, and is stopped and removed when the
//! process ends, however it ends: a shell waits for the end of a pipe that we hold.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use kelvin_io::postgres::{Connection, Target, TlsMode, connect};

use super::ports::free_port;

const SETTINGS: &str = "
    listen_addresses = '127.0.0.1'
    wal_level = logical
    max_wal_senders = 100
    max_replication_slots = 100
    max_connections = 100
    fsync = off
    shared_buffers = 128MB
    max_wal_size = 4GB
    timezone = 'Europe/Berlin'
    log_min_messages = warning
";

/// A running server.
pub struct Cluster {
    pub port: u16,
    directory: PathBuf,
    /// Stops the server when its input ends.
    guard: Child,
}

fn as_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}

/// The server refuses to run as root.
fn command(program: &Path) -> Command {
    if as_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn bin(program: &str) -> PathBuf {
    if let Ok(directory) = std::env::var("PG_BIN") {
        return Path::new(&directory).join(program);
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(program))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(program))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn initialise(directory: &Path) {
    run(command(&bin("initdb")).arg("-D").arg(directory).args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]));
}

/// What `postgres` says of its version.
fn version() -> String {
    let said = command(&bin("postgres")).arg("--version").output().expect("postgres runs");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// Whether the server under test is of this major or of a newer one.
pub fn is_since(major: u32) -> bool {
    let version = version();
    let number = version.split(' ').nth(2).and_then(|n| n.split(|c: char| !c.is_ascii_digit()).next());
    number.and_then(|n| n.parse::<u32>().ok()).expect("a version") >= major
}

/// Whether it is older than this major; then it says that the test does nothing.
pub fn is_before(major: u32) -> bool {
    let is_before = !is_since(major);
    if is_before {
        println!("SKIPPED: it needs Postgres {major} or newer, and this is {}", version());
    }
    is_before
}

/// An initialised data directory to copy, made once per machine: initdb takes seconds.
fn template() -> PathBuf {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE
        .get_or_init(|| {
            let version: String =
                version().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let path = std::env::temp_dir().join(format!("kelvin-test-{}", version.trim_matches('-')));
            if !path.join("PG_VERSION").exists() {
                let making = path.with_extension(format!("{}", std::process::id()));
                initialise(&making);
                // Another process may have been faster.
                if std::fs::rename(&making, &path).is_err() {
                    let _ = std::fs::remove_dir_all(&making);
                }
            }
            path
        })
        .clone()
}

impl Cluster {
    /// The server of this process.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::start(""))
    }

    /// A server of its own, with further settings.
    pub fn start(settings: &str) -> Cluster {
        Cluster::start_from(&template(), settings)
    }

    /// The same with an identity of its own: others are copies of one.
    pub fn start_anew(settings: &str) -> Cluster {
        let made = std::env::temp_dir().join(format!("kelvin-test-new-{}", std::process::id()));
        initialise(&made);
        let cluster = Cluster::start_from(&made, settings);
        let _ = std::fs::remove_dir_all(&made);
        cluster
    }

    /// A standby of this server, which is stopped and started for it. It is caught up when the two say so.
    pub fn standby(&self, settings: &str) -> Cluster {
        self.stop("fast");
        self.write("standby.signal", "");
        let conninfo = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port);
        let standby =
            Cluster::start_from(&self.directory, &format!("primary_conninfo = '{conninfo}'\n{settings}"));
        self.run_there("rm", &["standby.signal"]);
        self.launch();
        standby
    }

    fn start_from(template: &Path, settings: &str) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kelvin-test-pg-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        run(command(Path::new("cp")).args(["-r", "--reflink=auto"]).arg(template).arg(&directory));
        run(command(Path::new("chmod")).arg("700").arg(&directory));
        let port = free_port();
        let stop = format!(
            "read _; {prefix} {pg_ctl} -D {dir} -m immediate -s stop; {prefix} rm -rf {dir}",
            prefix = if as_root() { "runuser -u postgres --" } else { "" },
            pg_ctl = bin("pg_ctl").display(),
            dir = directory.display(),
        );
        let guard = Command::new("sh")
            .args(["-c", &stop])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let cluster = Cluster { port, directory, guard };
        cluster.configure(settings);
        cluster.launch();
        cluster
    }

    fn configure(&self, settings: &str) {
        let text = format!(
            "{SETTINGS}\nport = {}\nunix_socket_directories = '{}'\n{settings}\n",
            self.port,
            self.directory.display()
        );
        self.write("postgresql.auto.conf", &text);
    }

    /// Starts the server again after [`Cluster::stop`].
    pub fn launch(&self) {
        run(self.pg_ctl().args(["-w", "-s", "-l"]).arg(self.directory.join("server.log")).arg("start"));
    }

    /// Stops the server: `fast` or `immediate`.
    pub fn stop(&self, mode: &str) {
        run(self.pg_ctl().args(["-w", "-s", "-m", mode, "stop"]));
    }

    /// Writes a file into the data directory.
    pub fn write(&self, name: &str, text: &str) {
        let mut child = command(Path::new("tee"))
            .arg(self.directory.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("tee starts");
        std::io::Write::write_all(child.stdin.as_mut().expect("piped"), text.as_bytes()).expect("tee reads");
        assert!(child.wait().expect("tee ends").success());
    }

    /// Path of a file of the data directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs a program in the data directory as the server's user.
    pub fn run_there(&self, program: &str, arguments: &[&str]) {
        let mut command = command(Path::new(program));
        run(command.args(arguments).current_dir(&self.directory));
    }

    /// Copies a database as its users do. `false`: this Postgres has no programs for that.
    pub fn copy(&self, from: &str, to: &str) -> bool {
        if !bin("pg_dump").exists() {
            return false;
        }
        let whom = format!("-h 127.0.0.1 -p {} -U postgres", self.port);
        let (pg_dump, psql) = (bin("pg_dump"), bin("psql"));
        let (pg_dump, psql) = (pg_dump.display(), psql.display());
        let copy = format!(
            "set -e; {pg_dump} {whom} {from} > copy.sql; {psql} {whom} -qX -v ON_ERROR_STOP=1 -f copy.sql {to}"
        );
        self.run_there("sh", &["-c", &copy]);
        true
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        let path = self.directory.join("server.log");
        let read = command(Path::new("cat")).arg(path).output().expect("cat runs");
        String::from_utf8_lossy(&read.stdout).into_owned()
    }

    /// Makes the server read its settings again.
    pub fn reload(&self) {
        run(self.pg_ctl().args(["-s", "reload"]));
    }

    fn pg_ctl(&self) -> Command {
        let mut pg_ctl = command(&bin("pg_ctl"));
        pg_ctl.arg("-D").arg(&self.directory).stdout(Stdio::null());
        pg_ctl
    }

    /// Whom to connect to for a database of this server.
    pub fn target(&self, database: &str) -> Target {
        Target {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "postgres".into(),
            password: None,
            database: database.into(),
            tls: TlsMode::Disable,
            connect_timeout: None,
            root_certificates: None,
        }
    }

    /// Creates a database with a name of its own.
    pub async fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&self.target("postgres"), "test").await.expect("the server answers");
        admin.client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database is made");
        Database::open(self.target(&name)).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A database, with a connection to it.
pub struct Database {
    pub target: Target,
    pub connection: Connection,
}

impl Database {
    /// Connects as an app would: with its own settings, not ours.
    pub async fn open(target: Target) -> Database {
        let connection = connect(&target, "test-app").await.expect("the database answers");
        let app = "SET search_path = public; SET DateStyle = 'German'; SET TimeZone = 'Asia/Kolkata'";
        connection.client.batch_execute(app).await.expect("settings are taken");
        Database { target, connection }
    }

    /// Runs statements; a failure is the test's.
    pub async fn run(&self, sql: &str) {
        if let Err(e) = self.connection.client.batch_execute(sql).await {
            panic!("{}\n{sql}", kelvin_io::postgres::Error::from(e));
        }
    }

    /// One value as text.
    pub async fn value(&self, sql: &str) -> String {
        let messages = self.connection.client.simple_query(sql).await.expect("a query works");
        messages
            .iter()
            .find_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no row: {sql}"))
    }
}
