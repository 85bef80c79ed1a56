//! `switchboard credentials`: the keys and certificates of a NATS that lets in nobody else.
//!
//! A folder holds a CA, a certificate for the servers, and the seed of a key for each user. The servers themselves
//! only get `users.conf`: public keys, and by name what each may do (`deploy/nats/permissions.conf`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use nkeys::KeyPair as UserKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use switchboard_contract::process::UsageError;
use time::{Duration, OffsetDateTime};

/// Users, and what each has its permissions by; `admin` may do anything.
const USERS: [(&str, Option<&str>); 5] = [
    ("gateway", Some("$gateway")),
    ("matcher", Some("$matcher")),
    ("history", Some("$history")),
    ("operator", Some("$operator")),
    ("admin", None),
];
const CA_VALID: Duration = Duration::days(3_650);
/// Certificates of servers are renewed yearly at the least.
const SERVER_VALID: Duration = Duration::days(397);
/// Clocks differ.
const VALID_BEFORE: Duration = Duration::hours(1);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that holds them. What is there already stays as it is.
    #[arg(long, value_name = "FOLDER", default_value = ".switchboard/nats/users")]
    out: PathBuf,
    /// A name or an address by which clients and other servers reach the NATS servers: stands in their certificate.
    /// May be given several times, or separated by commas.
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',', default_values = ["localhost", "127.0.0.1"])]
    hosts: Vec<String>,
    /// Make another key for this user. The earlier one is let in, too, until it is retired.
    #[arg(long, value_name = "USER", value_parser = USERS.map(|(name, _)| name), conflicts_with = "retire")]
    rotate: Option<String>,
    /// Let in only the newest key of this user.
    #[arg(long, value_name = "USER", value_parser = USERS.map(|(name, _)| name))]
    retire: Option<String>,
    /// Make another certificate for the servers, of the same CA.
    #[arg(long)]
    renew_server: bool,
}

/// Makes what is missing, or what is asked for, and prints which files there are.
///
/// # Errors
/// If the folder cannot be read or written, or there is nothing to rotate or retire in it.
#[allow(clippy::print_stdout, reason = "scripts read it")]
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = Folder(args.out.clone());
    if let Some(user) = args.rotate.as_ref().or(args.retire.as_ref())
        && !folder.seed(user).is_file()
    {
        bail!(UsageError(format!("{} has no key of {user}", args.out.display())));
    }
    if args.renew_server {
        folder.discard("server.crt")?;
    }
    if let Some(user) = &args.rotate {
        std::fs::rename(folder.seed(user), folder.earlier(user)).context("cannot put the earlier key aside")?;
    }
    if let Some(user) = &args.retire {
        folder.discard(&format!("{user}.nk.earlier"))?;
    }
    folder.make(&args.hosts)?;
    for file in folder.files()? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The file with the seed of a user's key.
    pub fn seed(&self, user: &str) -> PathBuf {
        self.0.join(format!("{user}.nk"))
    }

    /// The file with the CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    fn earlier(&self, user: &str) -> PathBuf {
        self.0.join(format!("{user}.nk.earlier"))
    }

    /// Makes what is missing. `users.conf` always says what the seeds say.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn make(&self, hosts: &[String]) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.0).with_context(|| format!("cannot make {}", self.0.display()))?;
        self.certificates(hosts)?;
        for (user, _) in USERS {
            if !self.seed(user).is_file() {
                let seed = UserKey::new_user().seed().context("a new key has a seed")?;
                self.write(&format!("{user}.nk"), &(seed + "\n"))?;
            }
        }
        self.write("users.conf", &self.users()?)
    }

    fn users(&self) -> anyhow::Result<String> {
        let mut text =
            "# Written by `switchboard credentials`: public keys, and what each may do. Nothing here is secret.\n\
                        include ../permissions.conf\n\nusers: [\n"
                .to_owned();
        for (user, permissions) in USERS {
            for seed in [self.seed(user), self.earlier(user)].into_iter().filter(|seed| seed.is_file()) {
                let text_of_seed = read(&seed)?;
                let key = UserKey::from_seed(text_of_seed.trim());
                let key = key.with_context(|| format!("{} is no seed of an nkey", seed.display()))?.public_key();
                let permissions = permissions.map(|name| format!(", permissions: {name}")).unwrap_or_default();
                let _ = writeln!(text, "  {{ nkey: {key}{permissions} }}");
            }
        }
        Ok(text + "]\n")
    }

    fn certificates(&self, hosts: &[String]) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let mut ca = CertificateParams::default();
        ca.distinguished_name = named("Switchboard NATS CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (ca.not_before, ca.not_after) = (now - VALID_BEFORE, now + CA_VALID);
        if !self.ca().is_file() {
            let key = KeyPair::generate()?;
            self.write("ca.key", &key.serialize_pem())?;
            self.write("ca.crt", &ca.self_signed(&key)?.pem())?;
            self.discard("server.crt")?;
        }
        if self.0.join("server.crt").is_file() {
            return Ok(());
        }
        // Its name and its key are all that a certificate takes from its CA.
        let ca_key = KeyPair::from_pem(&read(&self.0.join("ca.key"))?).context("ca.key is no key")?;
        let mut server = CertificateParams::new(hosts)?;
        server.distinguished_name = named("Switchboard NATS server");
        // To each other, servers are clients as well.
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        server.use_authority_key_identifier_extension = true;
        (server.not_before, server.not_after) = (now - VALID_BEFORE, now + SERVER_VALID);
        let key = KeyPair::generate()?;
        self.write("server.key", &key.serialize_pem())?;
        self.write("server.crt", &server.signed_by(&key, &Issuer::new(ca, ca_key))?.pem())
    }

    /// Writes a file, whole or not at all, readable by its owner alone.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        let write = || -> anyhow::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(text.as_bytes())?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn discard(&self, name: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.0).with_context(|| format!("cannot list {}", self.0.display()))?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(folder: &Path, with: &[&str]) -> anyhow::Result<String> {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            args: Args,
        }
        let out = folder.to_str().expect("text");
        run(&Flags::parse_from(["credentials", "--out", out].iter().chain(with)).args)?;
        read(&folder.join("users.conf"))
    }

    #[test]
    fn a_key_is_rotated_in_two_steps_and_everything_else_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("users");
        let first = run_in(&below, &[]).expect("made");
        assert_eq!((first.matches("nkey: U").count(), first.matches("$gateway").count()), (5, 1), "{first}");
        let kept = ["ca.crt", "ca.key", "server.crt", "matcher.nk"].map(|name| (name, read(&below.join(name)).ok()));
        assert_eq!(run_in(&below, &[]).expect("there already"), first);
        let both = run_in(&below, &["--rotate", "gateway"]).expect("rotated");
        assert_eq!((both.matches("nkey: U").count(), both.matches("$gateway").count()), (6, 2), "{both}");
        assert!(first.lines().all(|line| both.contains(line)), "{both}");
        let second = run_in(&below, &["--retire", "gateway"]).expect("retired");
        assert_eq!((second.matches("nkey: U").count(), second.lines().count()), (5, first.lines().count()));
        assert!(second != first && second.lines().all(|line| both.contains(line)), "{second}");
        for (name, text) in kept {
            assert_eq!(read(&below.join(name)).ok(), text, "{name}");
        }
        let server = read(&below.join("server.crt")).expect("a certificate");
        run_in(&below, &["--renew-server"]).expect("renewed");
        assert_ne!(read(&below.join("server.crt")).expect("another one"), server);
        assert!(run_in(&folder.path().join("none"), &["--rotate", "gateway"]).is_err_and(|e| e.is::<UsageError>()));
    }

    #[test]
    fn secrets_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        run_in(folder.path(), &[]).expect("made");
        for file in Folder(folder.path().to_owned()).files().expect("files") {
            let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", file.display());
        }
    }
}
