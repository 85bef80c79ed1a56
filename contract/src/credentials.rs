//! Who a service is to NATS, and whom it takes for NATS: a key and a CA in files, which are read again for each
//! connection. So both can be changed under a service that runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Auth, AuthError, Client, ConnectOptions};
use nkeys::KeyPair;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::limits::{CARRIED_TIMEOUT, CREDENTIALS_BYTES_MAX, CREDENTIALS_LOOK, CREDENTIALS_RETRY};
use crate::process::UsageError;

/// A key, and the account's word for it where the file has one.
#[derive(Clone, Debug)]
struct Credentials {
    key: Arc<KeyPair>,
    jwt: Option<String>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, #[source] std::io::Error),
    /// It is too large to be one.
    #[error("{0} is larger than {CREDENTIALS_BYTES_MAX} bytes")]
    Large(PathBuf),
    /// It has no key.
    #[error("{0} has no nkey seed of a user (SU…), neither alone nor in a credentials file")]
    Seed(PathBuf),
    /// It has no certificate.
    #[error("{0} has no certificate in PEM")]
    Certificate(PathBuf),
}

/// The files of a connection.
#[derive(Clone, Debug)]
pub struct Files {
    creds: Option<PathBuf>,
    ca: Option<PathBuf>,
    /// What was read last: it counts while a file is being replaced.
    known: Arc<Mutex<Option<Credentials>>>,
    /// What both held before anything was connected with them.
    first: Option<Vec<u8>>,
}

impl Files {
    /// Reads both, as far as there are any.
    ///
    /// # Errors
    /// If one cannot be read, or is something else; the text names the flag.
    pub fn open(creds: Option<&Path>, ca: Option<&Path>) -> Result<Files, UsageError> {
        let known = creds.map(Credentials::read).transpose();
        let known = known.map_err(|error| UsageError(format!("--nats-creds: {error}")))?;
        ca.map(certificates).transpose().map_err(|error| UsageError(format!("--nats-ca: {error}")))?;
        let own = |path: &Path| path.to_owned();
        let known = Arc::new(Mutex::new(known));
        let mut files = Files { creds: creds.map(own), ca: ca.map(own), known, first: None };
        files.first = files.content();
        Ok(files)
    }

    /// Options that use them.
    pub fn options(&self) -> ConnectOptions {
        let options = match &self.creds {
            Some(_) => {
                let files = self.clone();
                ConnectOptions::with_auth_callback(move |nonce| std::future::ready(files.sign(&nonce)))
            }
            None => ConnectOptions::new(),
        };
        match &self.ca {
            Some(ca) => options.add_root_certificates(ca.clone()).require_tls(true),
            None => options,
        }
    }

    fn sign(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let fresh = self.creds.as_deref().map(Credentials::read).transpose();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match fresh {
            Ok(fresh) => *known = fresh,
            Err(error) => tracing::warn!(%error, "the credentials that were read before are used"),
        }
        let Some(Credentials { key, jwt }) = known.clone() else { return Err(AuthError::new("no credentials")) };
        let mut auth = Auth::new();
        auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
        // With a JWT the server takes the key from there.
        auth.nkey = jwt.is_none().then(|| key.public_key());
        auth.jwt = jwt;
        Ok(auth)
    }

    fn content(&self) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        for path in self.creds.iter().chain(&self.ca) {
            // A file that is not there for a moment is being replaced.
            content.extend(read(path).ok()?);
            content.push(0);
        }
        Some(content)
    }

    /// Connects anew whenever a file has changed, once a server lets its content in: until then the connection stays
    /// as it is.
    pub(crate) async fn watch(self, client: Client, scouting: Arc<ConnectOptions>) {
        if self.creds.is_none() && self.ca.is_none() {
            return;
        }
        let mut used = self.first.clone();
        let mut look = interval(CREDENTIALS_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused = false;
        loop {
            look.tick().await;
            let now = self.content();
            if now.is_none() || now == used {
                continue;
            }
            match self.try_out(&client, &scouting).await {
                Ok(()) => {
                    tracing::info!("the credentials for NATS have changed; connecting anew");
                    if let Err(error) = client.force_reconnect().await {
                        tracing::debug!(%error, "the connection has ended");
                        return;
                    }
                    (used, refused) = (now, false);
                }
                Err(error) => {
                    if !refused {
                        tracing::warn!(error, "the new credentials for NATS are not let in yet; trying on");
                    }
                    refused = true;
                    // Each attempt is a line in the servers' logs.
                    sleep(CREDENTIALS_RETRY).await;
                }
            }
        }
    }

    async fn try_out(&self, client: &Client, scouting: &ConnectOptions) -> Result<(), String> {
        let servers = match timeout(CARRIED_TIMEOUT, client.server_pool()).await {
            Ok(Ok(servers)) => servers,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the connection does not answer".to_owned()),
        };
        let mut last = "no server is known".to_owned();
        for server in servers.into_iter().take(crate::limits::CARRIED_SERVERS_MAX) {
            match timeout(CARRIED_TIMEOUT, scouting.clone().connect(server.addr)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer in time".to_owned(),
            }
        }
        Err(last)
    }
}

impl Credentials {
    /// A credentials file as `nsc` makes it (a JWT and a seed), or a seed alone.
    fn read(path: &Path) -> Result<Credentials, CredentialsError> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let lines = || text.lines().map(str::trim);
        let seed = lines().find(|line| line.starts_with("SU"));
        let key = seed.and_then(|seed| KeyPair::from_seed(seed).ok());
        let key = key.ok_or_else(|| CredentialsError::Seed(path.to_owned()))?;
        // Three parts in base64, the first of which is a JSON object.
        let jwt = lines().find(|line| line.starts_with("eyJ")).map(str::to_owned);
        Ok(Credentials { key: Arc::new(key), jwt })
    }
}

fn certificates(path: &Path) -> Result<(), CredentialsError> {
    let found = String::from_utf8_lossy(&read(path)?).contains("-----BEGIN CERTIFICATE-----");
    if found { Ok(()) } else { Err(CredentialsError::Certificate(path.to_owned())) }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let content = std::fs::read(path).map_err(|error| CredentialsError::Read(path.to_owned(), error))?;
    if content.len() > CREDENTIALS_BYTES_MAX {
        return Err(CredentialsError::Large(path.to_owned()));
    }
    Ok(content)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    fn signed(text: &str) -> Result<Auth, UsageError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Files::open(Some(file.path()), None).map(|files| files.sign(b"nonce").expect("signed"))
    }

    #[test]
    fn a_seed_alone_names_its_key_and_a_credentials_file_has_the_accounts_word_for_it() {
        let (key, jwt) = (KeyPair::new_user(), "eyJ0eXAiOiJKV1QifQ.eyJzdWIiOiJVIn0.c2ln");
        let (seed, signature) = (key.seed().expect("a seed"), key.sign(b"nonce").ok());
        let alone = signed(&format!("{seed}\n")).expect("a key");
        assert_eq!((alone.nkey, alone.jwt, &alone.signature), (Some(key.public_key()), None, &signature));
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let both = signed(&creds).expect("a key");
        assert_eq!((both.nkey, both.jwt.as_deref(), both.signature), (None, Some(jwt), signature));
    }

    #[test]
    fn what_is_no_key_is_refused_by_the_flags_name() {
        let account = KeyPair::new_account().seed().expect("a seed");
        for text in [String::new(), account, "SUAB".to_owned(), "x".repeat(CREDENTIALS_BYTES_MAX + 1)] {
            assert!(signed(&text).is_err_and(|error| error.0.starts_with("--nats-creds: ")), "{text:.9}");
        }
        let nowhere = Some(Path::new("/nowhere"));
        assert!(Files::open(None, nowhere).is_err_and(|error| error.0.starts_with("--nats-ca: ")));
    }
}
