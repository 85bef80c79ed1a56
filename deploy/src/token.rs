//! `switchboard token`: tokens for development, signed with the key that the local runner makes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Subcommand;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

use crate::runfile::FOLDER;

/// The key's file, in the folder of everything that the tool keeps.
const KEY_FILE: &str = "jwt-secret";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A user's token, for the socket parameter user_token. Printed alone, on standard output.
    User(UserArgs),
    /// A room's token, for the room_token of a join. Printed alone, on standard output.
    Room(RoomArgs),
}

/// Arguments of both kinds.
#[derive(Debug, clap::Args)]
struct MintArgs {
    /// How long it counts: 45s, 30m, 1h, 7d. It counts for 30 s more: clocks differ (--jwt-leeway of the gateway).
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = ttl)]
    ttl: Duration,
    /// The rank in rooms: 0 visitor, 10 member, 50 VIP, 100 moderator.
    #[arg(long, value_name = "N")]
    rank: Option<i64>,
    /// The folder of everything that this tool keeps; the key is made there if it is missing.
    #[arg(long, env = "SWITCHBOARD_FOLDER", default_value = FOLDER)]
    folder: PathBuf,
}

/// Arguments of `switchboard token user`.
#[derive(Debug, clap::Args)]
struct UserArgs {
    /// Whose token it is: the userId of joins.
    #[arg(long, value_name = "USER")]
    sub: String,
    /// The only role that the user may join in; without it, any.
    #[arg(long, value_parser = ["teacher", "student"])]
    role: Option<String>,
    /// The feeds that the user may join, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "FEEDS")]
    feeds: Vec<String>,
    #[command(flatten)]
    mint: MintArgs,
}

/// Arguments of `switchboard token room`.
#[derive(Debug, clap::Args)]
struct RoomArgs {
    /// For which room: the topic without "room:".
    #[arg(long)]
    room: String,
    /// For which user; without it, for whoever has it.
    #[arg(long, value_name = "USER")]
    sub: Option<String>,
    #[command(flatten)]
    mint: MintArgs,
}

/// Prints a token.
///
/// # Errors
/// If there is no key, and none can be made.
#[allow(clippy::print_stdout, reason = "scripts read it")]
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut claims = Map::new();
    let mint = match args.kind {
        Kind::User(user) => {
            claims.insert("sub".into(), user.sub.into());
            claims.extend(user.role.map(|role| ("role".into(), role.into())));
            if !user.feeds.is_empty() {
                claims.insert("feeds".into(), user.feeds.into());
            }
            user.mint
        }
        Kind::Room(room) => {
            claims.insert("room".into(), room.room.into());
            claims.extend(room.sub.map(|sub| ("sub".into(), sub.into())));
            room.mint
        }
    };
    claims.extend(mint.rank.map(|rank| ("rank".into(), rank.into())));
    println!("{}", Key::of(&mint.folder)?.mint(claims, mint.ttl)?);
    Ok(ExitCode::SUCCESS)
}

/// The development key: a secret for HS256.
#[derive(Clone)]
pub struct Key(EncodingKey);

impl Key {
    /// The key in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub fn of(folder: &Path) -> anyhow::Result<Key> {
        let path = Key::path(folder);
        Key::make(folder).with_context(|| format!("cannot make {}", path.display()))?;
        let secret = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Key(EncodingKey::from_secret(secret.trim_ascii_end())))
    }

    /// Where the key is.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(KEY_FILE)
    }

    /// Makes it, unless it is there: whole or not at all, and readable by its owner alone.
    fn make(folder: &Path) -> anyhow::Result<()> {
        let path = Key::path(folder);
        if path.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(folder)?;
        // Temporary files are made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(file, "{secret}")?;
        match file.persist_noclobber(&path) {
            // Another process was faster: its key is as good.
            Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A token with these claims that counts for so long.
    ///
    /// # Errors
    /// If the clock stands before 1970.
    pub fn mint(&self, mut claims: Map<String, Value>, ttl: Duration) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        claims.insert("iat".into(), json!(now.as_secs()));
        claims.insert("exp".into(), json!(now.saturating_add(ttl).as_secs()));
        Ok(encode(&Header::default(), &claims, &self.0)?)
    }
}

/// `45s`, `30m`, `1h`, `7d`.
fn ttl(text: &str) -> Result<Duration, String> {
    let bad = || "a time is 45s, 30m, 1h or 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u32 = number.parse().map_err(|_| bad())?;
    Ok(Duration::from_secs(seconds * u64::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("made");
        Key::of(&below).expect("a key");
        let secret = std::fs::read_to_string(Key::path(&below)).expect("a secret");
        assert_eq!(secret.trim().len(), 64);
        assert_eq!(std::fs::metadata(Key::path(&below)).expect("a file").permissions().mode() & 0o777, 0o600);
        Key::of(&below).expect("the same key");
        assert_eq!(std::fs::read_to_string(Key::path(&below)).expect("a secret"), secret);
        assert_eq!(std::fs::read_dir(&below).expect("a folder").count(), 1, "nothing else is left");
    }

    #[test]
    fn times_are_read() {
        let of = |text: &str| ttl(text).ok().map(|time| time.as_secs());
        assert_eq!(["45s", "30m", "1h", "7d", "0s"].map(of), [45, 1800, 3600, 604_800, 0].map(Some));
        assert_eq!(["", "h", "1", "-1h", "1w", "1ms", "ä"].map(of), [None; 7]);
    }
}
