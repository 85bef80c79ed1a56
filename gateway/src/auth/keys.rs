//! The keys that tokens are verified with, each of one algorithm. Pure.
//!
//! A key decides which `alg` it verifies, and never a token: so a public key cannot be taken for a shared secret.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, crypto};
use serde::Deserialize;
use switchboard_contract::limits::JWKS_KEYS_MAX;

/// An uncompressed point of P-256, as SEC 1 writes it. Bytes.
const P256_POINT_BYTES: usize = 65;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A secret of no bytes.
    #[error("the secret is empty")]
    Empty,
    /// A private key, or a certificate, or no PEM.
    #[error("it holds no PEM public key (\"-----BEGIN PUBLIC KEY-----\")")]
    NoPublicKey,
    /// Neither RSA nor P-256 nor Ed25519.
    #[error("it is no public key of RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)")]
    Kind,
    /// No set of keys in JSON.
    #[error("it is no JWKS: {0}")]
    NoJwks(serde_json::Error),
    /// More keys than a set may have.
    #[error("it holds more than {JWKS_KEYS_MAX} keys")]
    TooMany,
    /// A set without a key that can be used.
    #[error("it holds no key for RS256, ES256 or EdDSA")]
    NoneOfUse,
}

/// A key, with the one algorithm that it is for.
#[derive(Clone, Debug)]
pub struct Key {
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl Key {
    /// A shared secret, for HS256. White space at its end, such as an editor's last newline, does not count.
    ///
    /// # Errors
    /// If nothing is left.
    pub fn secret(bytes: &[u8]) -> Result<Key, KeyError> {
        let secret = bytes.trim_ascii_end();
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Key { kid: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) })
    }

    /// A public key in PEM, for RS256, ES256 or EdDSA.
    ///
    /// # Errors
    /// If it is none.
    pub fn public(pem: &[u8]) -> Result<Key, KeyError> {
        let text = str::from_utf8(pem).map_err(|_| KeyError::NoPublicKey)?;
        if !text.contains("PUBLIC KEY-----") || text.contains("PRIVATE KEY-----") {
            return Err(KeyError::NoPublicKey);
        }
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
        let ec = |_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key));
        let ed = |_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
        let (algorithm, key) = rsa.or_else(ec).or_else(ed).map_err(|_| KeyError::Kind)?;
        Key { kid: None, algorithm, key }.usable().ok_or(KeyError::Kind)
    }

    /// The keys of a JWKS that can be used; others in it are passed over. A secret in it is, too: what is published
    /// is none.
    ///
    /// # Errors
    /// If there is none, or there are too many.
    pub fn set(json: &[u8]) -> Result<Vec<Key>, KeyError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(KeyError::NoJwks)?;
        if set.keys.len() > JWKS_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let keys: Vec<Key> =
            set.keys.into_iter().filter_map(|jwk| Key::jwk(&serde_json::from_value(jwk).ok()?)).collect();
        if keys.is_empty() { Err(KeyError::NoneOfUse) } else { Ok(keys) }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "kinds that are added later are passed over as well")]
    fn jwk(jwk: &Jwk) -> Option<Key> {
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let common = &jwk.common;
        let other = common.key_algorithm.is_some_and(|alg| alg != named)
            || common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature)
            || common.key_operations.as_ref().is_some_and(|of| !of.contains(&KeyOperations::Verify));
        if other {
            return None;
        }
        let kid = common.key_id.as_deref().map(Into::into);
        Key { kid, algorithm, key: DecodingKey::from_jwk(jwk).ok()? }.usable()
    }

    /// Whether it may have signed a token that names this key, or none.
    pub(super) fn fits(&self, kid: Option<&str>) -> bool {
        match (&self.kid, kid) {
            (Some(own), Some(named)) => **own == *named,
            (None, _) | (_, None) => true,
        }
    }

    /// Itself, if the algorithm takes it: better known when it is read than when it verifies.
    fn usable(self) -> Option<Key> {
        let point = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => bytes.len() == P256_POINT_BYTES,
            DecodingKeyKind::RsaModulusExponent { .. } => false,
        };
        let taken = (self.algorithm != Algorithm::ES256 || point)
            && crypto::verify("AA", b"", &self.key, self.algorithm).is_ok();
        taken.then_some(self)
    }
}
