//! The flags of tokens, and what they are read into.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use switchboard_contract::limits::{JWKS_INTERVAL, TOKEN_LEEWAY};
use switchboard_contract::process::{UsageError, seconds};

use super::claims::{ClaimNames, Rules};
use super::jwks::{Jwks, Pace};
use super::keys::{Key, KeyError};
use super::{Auth, Verifier};

/// A shorter secret can be guessed from one token: RFC 7518 asks for as many bits as the hash has. Bytes.
const SECRET_BYTES_MIN: usize = 32;

/// How tokens are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// Tokens are JWTs, and verified: signature, audience, time.
    Jwt,
    /// Tokens are accepted and not verified: for development only.
    Open,
}

/// Flags of tokens.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens")]
pub struct AuthArgs {
    /// How tokens are treated: "jwt" needs a key, "open" verifies nothing.
    #[arg(long, env = "SWITCHBOARD_AUTH", default_value = "jwt")]
    auth: AuthMode,
    /// File with the shared secret of tokens signed with HS256. White space at its end does not count.
    #[arg(long, env = "SWITCHBOARD_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,
    /// File with a public key in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
    #[arg(long, env = "SWITCHBOARD_JWT_PUBLIC_KEY_FILE", value_name = "FILE")]
    jwt_public_key_file: Option<PathBuf>,
    /// A JWKS with public keys: a file, or an http:// or https:// URL.
    #[arg(long, env = "SWITCHBOARD_JWT_JWKS", value_name = "FILE|URL", hide_env_values = true)]
    jwt_jwks: Option<String>,
    /// From one reading of the JWKS to the next, in seconds; at least 10. A key that is not known is looked for sooner.
    #[arg(long, env = "SWITCHBOARD_JWT_JWKS_REFRESH", value_name = "SECONDS",
        default_value_t = JWKS_INTERVAL.as_secs(), value_parser = seconds(10))]
    jwt_jwks_refresh: u64,
    /// What has to stand in a token's "aud"; of several, separated by commas, one. Without it "aud" is not looked at.
    #[arg(long, env = "SWITCHBOARD_JWT_AUDIENCE", value_delimiter = ',', value_name = "AUDIENCE")]
    jwt_audience: Vec<String>,
    /// How far the clocks of issuer and gateway may differ, in seconds: "exp" and "nbf" are that much wider.
    #[arg(long, env = "SWITCHBOARD_JWT_LEEWAY", value_name = "SECONDS", default_value_t = TOKEN_LEEWAY.as_secs(),
        value_parser = seconds(0))]
    jwt_leeway: u64,
    /// The claim with the user's id.
    #[arg(long, env = "SWITCHBOARD_JWT_CLAIM_USER", value_name = "CLAIM", default_value = "sub")]
    jwt_claim_user: String,
    /// The claim with the only role that the user may join in: "teacher" or "student".
    #[arg(long, env = "SWITCHBOARD_JWT_CLAIM_ROLE", value_name = "CLAIM", default_value = "role")]
    jwt_claim_role: String,
    /// The claim with the rank in rooms.
    #[arg(long, env = "SWITCHBOARD_JWT_CLAIM_RANK", value_name = "CLAIM", default_value = "rank")]
    jwt_claim_rank: String,
    /// The claim with the feeds that the user may join.
    #[arg(long, env = "SWITCHBOARD_JWT_CLAIM_FEEDS", value_name = "CLAIM", default_value = "feeds")]
    jwt_claim_feeds: String,
    /// The claim of room tokens with the room's id.
    #[arg(long, env = "SWITCHBOARD_JWT_CLAIM_ROOM", value_name = "CLAIM", default_value = "room")]
    jwt_claim_room: String,
}

impl AuthArgs {
    /// Reads the keys, and says in the log how tokens are treated.
    ///
    /// # Errors
    /// If there is no key to verify with, or one cannot be used.
    pub async fn read(&self) -> anyhow::Result<Auth> {
        let rules = self.rules();
        if self.auth == AuthMode::Open {
            tracing::warn!("--auth open: NO TOKEN IS VERIFIED, anybody can be anybody");
            return Ok(Auth::Open(rules.names));
        }
        let mut keys = Vec::new();
        if let Some(path) = &self.jwt_secret_file {
            let short = |bytes: &[u8]| bytes.trim_ascii_end().len() < SECRET_BYTES_MIN;
            let key = read_key("--jwt-secret-file", path, |bytes| {
                if short(bytes) {
                    tracing::warn!("the secret has less than {SECRET_BYTES_MIN} bytes: it can be guessed from a token");
                }
                Key::secret(bytes)
            });
            keys.push(key?);
        }
        if let Some(path) = &self.jwt_public_key_file {
            keys.push(read_key("--jwt-public-key-file", path, Key::public)?);
        }
        let jwks = match &self.jwt_jwks {
            Some(place) => Some(Jwks::start(place, Pace::new(Duration::from_secs(self.jwt_jwks_refresh))).await?),
            None => None,
        };
        if keys.is_empty() && jwks.is_none() {
            let text = "--auth jwt needs a key to verify tokens with: give --jwt-secret-file, --jwt-public-key-file or \
                        --jwt-jwks. For development, --auth open verifies nothing";
            return Err(UsageError(text.into()).into());
        }
        let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
        tracing::info!(?algorithms, jwks = jwks.is_some(), "tokens are verified");
        Ok(Auth::Jwt(Verifier::new(keys, jwks, rules).into()))
    }

    fn rules(&self) -> Rules {
        let names = ClaimNames {
            user: self.jwt_claim_user.clone(),
            role: self.jwt_claim_role.clone(),
            rank: self.jwt_claim_rank.clone(),
            feeds: self.jwt_claim_feeds.clone(),
            room: self.jwt_claim_room.clone(),
        };
        Rules { audience: self.jwt_audience.clone(), names, leeway: Duration::from_secs(self.jwt_leeway) }
    }
}

fn read_key(flag: &str, path: &Path, read: impl FnOnce(&[u8]) -> Result<Key, KeyError>) -> anyhow::Result<Key> {
    let key = std::fs::read(path).context("cannot be read").and_then(|bytes| Ok(read(&bytes)?));
    key.map_err(|error| UsageError(format!("{flag} {}: {error:#}", path.display())).into())
}
