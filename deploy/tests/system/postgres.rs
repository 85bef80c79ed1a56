//! A PostgreSQL of one's own, on its own port and in its own folder; killed on drop.

use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use switchboard_contract::testing::{DEADLINE, free_port, skipped};
use tempfile::TempDir;
use tokio_postgres::{Client, Error, NoTls};

/// A port can be taken between being found free and being bound.
const START_ATTEMPTS: usize = 5;
/// A server that has been told to stop at once does so within this time, or is killed.
const STOP: Duration = Duration::from_secs(5);

/// A server with one database, which takes any password.
pub(crate) struct Postgres {
    programs: PathBuf,
    /// It refuses to run as root; user and group.
    user: Option<(u32, u32)>,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a database and serves it. `None` if no PostgreSQL is installed: the test is skipped with a line; with
    /// `REQUIRE_ALL=1` that panics.
    pub(crate) async fn start() -> Option<Postgres> {
        let Some(programs) = programs() else {
            skipped("PostgreSQL (initdb on the PATH, or in /usr/lib/postgresql/*/bin)");
            return None;
        };
        let user = geteuid().is_root().then(somebody);
        let folder = tempfile::tempdir().expect("a folder");
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("the folder is given away");
        }
        let mut postgres = Postgres { programs, user, folder, port: 0, child: None };
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = initdb.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for _ in 0..START_ATTEMPTS {
            postgres.port = free_port();
            if postgres.launch().await {
                return Some(postgres);
            }
        }
        panic!("PostgreSQL does not start: {}", std::fs::read_to_string(postgres.log()).unwrap_or_default());
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it at once, as a crash would, but for what a crash leaves in the system's shared memory.
    pub(crate) fn kill(&mut self) {
        if self.child.is_none() {
            return;
        }
        self.signal(Signal::CONT);
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
        let told = Instant::now();
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if told.elapsed() > STOP {
                // Its children end when they notice.
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after [`Postgres::kill`], with the same data on the same port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.launch().await, "PostgreSQL does not start again");
    }

    /// Stops all its processes, so that it takes connections and says nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Wakes it.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        self.connect().await.expect("a connection").batch_execute(sql).await.expect(sql);
    }

    /// What a statement says: rows of one column, a bigint.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<i64> {
        let rows = self.connect().await.expect("a connection").query(sql, &[]).await.expect(sql);
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn connect(&self) -> Result<Client, Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether it came up; `false` if it exited, as for a port that was taken meanwhile.
    async fn launch(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = self.command("postgres");
        command.args(["-F", "-h", "127.0.0.1", "-p", &self.port.to_string()]).arg("-k").arg(self.folder.path());
        let child = command.stdout(Stdio::null()).stderr(log).process_group(0).spawn().expect("postgres runs");
        self.child = Some(child);
        let deadline = Instant::now() + DEADLINE;
        while self.connect().await.is_err() {
            if self.child.as_mut().is_none_or(|child| child.try_wait().expect("it can be asked").is_some()) {
                self.child = None;
                return false;
            }
            assert!(Instant::now() < deadline, "PostgreSQL takes no connections");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// One of its programs, for its data, as its user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.arg("-D").arg(self.folder.path().join("data")).current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }

    /// Each backend is a process group of its own, so they are looked up. The first is the one that makes them.
    fn signal(&self, signal: Signal) {
        let first = self.child.as_ref().expect("it runs").id();
        let to = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, signal));
        to(first).expect("a process").expect("a signal");
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).expect("it runs");
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // It may have ended.
            let _ = to(child);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where PostgreSQL's programs are: on the PATH, else the newest that Debian's packages have put down.
fn programs() -> Option<PathBuf> {
    let there = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|entry| entry.path()).collect();
    installed.sort_by_key(|path| std::cmp::Reverse(version(path)));
    std::env::split_paths(&path).chain(installed.into_iter().map(|path| path.join("bin"))).find(there)
}

fn version(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// User and group of somebody who is not root: `postgres`, or `nobody`.
fn somebody() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("a list of users");
    let find = |name: &str| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|fields: &Vec<&str>| fields[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("a user who is not root")
}
