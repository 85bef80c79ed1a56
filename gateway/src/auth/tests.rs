//! Every way in which a token does not count, and what those say that do.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::claims::RoomClaims;
use super::*;

const SECRET: &[u8] = b"a secret of more than 32 bytes, as it should be";
const NOW: u64 = 1_800_000_000;

/// The private and the public half of a key in `gateway/tests/keys`, made for these tests alone.
macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/keys/", $name, ".pem"))
    };
}

/// Signs with a private key in PEM.
fn signed_with(pem: &[u8], algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> Token {
    let ec_or_ed = |_| EncodingKey::from_ec_pem(pem).or_else(|_| EncodingKey::from_ed_pem(pem));
    let key = EncodingKey::from_rsa_pem(pem).or_else(ec_or_ed);
    let header = Header { kid: kid.map(Into::into), ..Header::new(algorithm) };
    Token::new(&encode(&header, claims, &key.expect("a key")).expect("a token")).expect("not empty")
}

/// Signs with a secret.
pub(super) fn signed(secret: &[u8], claims: &Value) -> Token {
    let key = EncodingKey::from_secret(secret);
    Token::new(&encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")).expect("not empty")
}

/// The public half of an RSA key in PEM, as a JWK with this `kid`.
pub(super) fn jwk(pem: &[u8], kid: Option<&str>) -> Value {
    let key = EncodingKey::from_rsa_pem(pem).expect("a key");
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a JWK");
    jwk.common.key_id = kid.map(Into::into);
    serde_json::to_value(jwk).expect("JSON")
}

/// A token for `sub` 5, signed with the RSA key of the tests, or the other one.
pub(super) fn rsa_token(other: bool, kid: Option<&str>) -> Token {
    let pem: &[u8] = if other { pem!("other") } else { pem!("rsa") };
    signed_with(pem, Algorithm::RS256, kid, &json!({"sub": 5}))
}

/// The public half of one of those as a JWKS.
pub(super) fn jwks_of(other: bool, kid: Option<&str>) -> String {
    let pem: &[u8] = if other { pem!("other") } else { pem!("rsa") };
    json!({"keys": [jwk(pem, kid)]}).to_string()
}

fn rules() -> Rules {
    Rules { leeway: Duration::from_secs(30), ..Rules::default() }
}

fn check_with(key: &Key, rules: &Rules, token: &Token) -> Result<Either, TokenError> {
    verify(token, [key].into_iter(), rules, Duration::from_secs(NOW))
}

/// What a token with these claims says, signed with the secret.
fn check(claims: &Value) -> Result<Either, TokenError> {
    check_with(&Key::secret(SECRET).expect("a key"), &rules(), &signed(SECRET, claims))
}

fn user(claims: &Value) -> Claims {
    match check(claims) {
        Ok(Either::User(claims)) => claims,
        other => panic!("{claims}: {other:?}"),
    }
}

fn room(claims: &Value) -> RoomClaims {
    match check(claims) {
        Ok(Either::Room(claims)) => claims,
        other => panic!("{claims}: {other:?}"),
    }
}

fn id(text: &str) -> UserId {
    UserId::text(text).expect("an id")
}

#[test]
fn a_token_says_who_and_what() {
    let all = user(&json!({"sub": 5, "role": "teacher", "rank": 50, "feeds": ["a", "b"], "exp": NOW + 60}));
    assert_eq!((all.user, all.role.as_deref(), all.rank), (id("5"), Some("teacher"), Some(50)));
    assert_eq!(all.feeds, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(all.until, Some(Duration::from_secs(NOW + 60 + 30)));
    let least = user(&json!({"sub": "ada", "role": null}));
    assert_eq!(least, Claims { user: id("ada"), role: None, rank: None, feeds: None, until: None });

    let mut names = rules();
    names.names.user = "uid".into();
    let key = Key::secret(SECRET).expect("a key");
    let other = check_with(&key, &names, &signed(SECRET, &json!({"uid": "ada", "sub": "x"})));
    assert!(matches!(other, Ok(Either::User(Claims { user, .. })) if user == id("ada")));
}

#[test]
fn each_kind_of_key_verifies_its_own_algorithm_and_no_other() {
    let claims = json!({"sub": 5});
    let public: [(&[u8], Algorithm); 3] =
        [(pem!("rsa.pub"), Algorithm::RS256), (pem!("ec.pub"), Algorithm::ES256), (pem!("ed.pub"), Algorithm::EdDSA)];
    let tokens = [
        signed_with(pem!("rsa"), Algorithm::RS256, None, &claims),
        signed_with(pem!("ec"), Algorithm::ES256, None, &claims),
        signed_with(pem!("ed"), Algorithm::EdDSA, None, &claims),
        signed(SECRET, &claims),
    ];
    for (at, (pem, algorithm)) in public.into_iter().enumerate() {
        let key = Key::public(pem).expect("a key");
        assert_eq!(key.algorithm, algorithm);
        for (of, token) in tokens.iter().enumerate() {
            let expected = if of == at { None } else { Some(TokenError::Algorithm) };
            assert_eq!(check_with(&key, &rules(), token).err(), expected, "key {at}, token {of}");
        }
        // The oldest trick: the public key, which anybody has, as the secret of HS256.
        for secret in [pem, pem.trim_ascii_end()] {
            assert_eq!(check_with(&key, &rules(), &signed(secret, &claims)), Err(TokenError::Algorithm));
        }
    }
    // Another algorithm of the same family, with the right key.
    let rs512 = signed_with(pem!("rsa"), Algorithm::RS512, None, &claims);
    let key = Key::public(pem!("rsa.pub")).expect("a key");
    assert_eq!(check_with(&key, &rules(), &rs512), Err(TokenError::Algorithm));
    let other = signed_with(pem!("other"), Algorithm::RS256, None, &claims);
    assert_eq!(check_with(&key, &rules(), &other), Err(TokenError::Signature));
}

#[test]
fn what_is_not_signed_does_not_count() {
    let key = Key::secret(SECRET).expect("a key");
    let check = |text: &str| check_with(&key, &rules(), &Token::new(text).expect("not empty")).expect_err(text);
    // {"alg":"none"}, with {"sub":5}, with and without a signature.
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOjV9.";
    let good = signed(SECRET, &json!({"sub": 5}));
    let (message, signature) = good.as_str().rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");
    for text in [none, &format!("{none}AA"), "x", "a.b", "a.b.c", "..", "a.b.c.d", &format!("{message}.{signature}.")] {
        assert_eq!(check(text), TokenError::Malformed, "{text}");
    }
    // The signature of another text, none, and half of one.
    for text in
        [format!("{header}.eyJzdWIiOjZ9.{signature}"), format!("{message}."), format!("{message}.{}", &signature[..20])]
    {
        assert_eq!(check(&text), TokenError::Signature, "{text}");
    }
    let wrong = signed(b"another secret of more than 32 bytes, which it is", &json!({"sub": 5}));
    assert_eq!(check(wrong.as_str()), TokenError::Signature);
    assert_eq!(check(&"x".repeat(9 * 1024)), TokenError::TooLarge);
    // {"alg":"HS256","crit":["x"]}: what is critical has to be understood.
    let header = Header { crit: Some(vec!["x".into()]), ..Header::new(Algorithm::HS256) };
    let critical = encode(&header, &json!({"sub": 5}), &EncodingKey::from_secret(SECRET)).expect("a token");
    assert_eq!(check(&critical), TokenError::Malformed);
}

#[test]
fn times_count_with_leeway_on_both_sides() {
    let at = |name: &str, time: Value| check(&json!({"sub": 5, name: time})).err();
    assert_eq!(at("exp", json!(NOW + 1)), None);
    assert_eq!(at("exp", json!(NOW - 29)), None, "within the leeway");
    assert_eq!(at("exp", json!(NOW - 30)), Some(TokenError::Expired));
    assert_eq!(at("exp", json!(0)), Some(TokenError::Expired));
    assert_eq!(at("exp", json!(-5)), Some(TokenError::Expired));
    assert_eq!(at("exp", json!(NOW as f64 - 29.5)), None, "a NumericDate may have a fraction");
    assert_eq!(at("exp", json!(NOW as f64 - 30.5)), Some(TokenError::Expired));
    assert_eq!(at("exp", json!(u64::MAX)), None, "as good as never");
    assert_eq!(at("exp", json!(1e300)), None);
    assert_eq!(at("exp", json!("soon")), Some(TokenError::Claim(Claim::Expires)));
    assert_eq!(at("nbf", json!(NOW + 30)), None, "within the leeway");
    assert_eq!(at("nbf", json!(NOW + 31)), Some(TokenError::NotYet));
    assert_eq!(at("nbf", json!({})), Some(TokenError::Claim(Claim::NotBefore)));
    assert_eq!(TokenError::Expired.reason(), Reason::TokenExpired);
    assert_eq!(TokenError::NotYet.reason(), Reason::Unauthorized);
}

#[test]
fn the_audience_counts_where_one_is_configured() {
    let key = Key::secret(SECRET).expect("a key");
    let rules = Rules { audience: vec!["chat".into(), "school".into()], ..rules() };
    let of = |claims: Value| check_with(&key, &rules, &signed(SECRET, &claims)).err();
    for good in [json!("chat"), json!(["x", "school"])] {
        assert_eq!(of(json!({"sub": 5, "aud": good})), None);
    }
    for bad in [json!("x"), json!([]), json!(["x"]), json!(7), json!({"chat": "chat"}), Value::Null] {
        assert_eq!(of(json!({"sub": 5, "aud": bad})), Some(TokenError::Audience), "{bad}");
    }
    assert_eq!(of(json!({"sub": 5})), Some(TokenError::Audience));
    assert!(check(&json!({"sub": 5, "aud": "anybody"})).is_ok(), "none is configured");
}

#[test]
fn claims_that_are_missing_or_of_no_use() {
    let of = |claims: Value| check(&claims).expect_err("refused");
    assert_eq!(of(json!({})), TokenError::Without(Claim::User));
    assert_eq!(of(json!({"sub": null})), TokenError::Without(Claim::User));
    for sub in [json!(""), json!("x".repeat(129)), json!(5.5), json!(true)] {
        assert_eq!(of(json!({"sub": sub})), TokenError::Claim(Claim::User), "{sub}");
    }
    assert_eq!(of(json!({"sub": ["5"]})), TokenError::Malformed);
    assert_eq!(of(json!({"sub": 5, "role": ["teacher"]})), TokenError::Claim(Claim::Role));
    assert_eq!(of(json!({"sub": 5, "rank": "100"})), TokenError::Claim(Claim::Rank));
    assert_eq!(of(json!({"sub": 5, "feeds": "a"})), TokenError::Claim(Claim::Feeds));
    assert_eq!(of(json!({"sub": 5, "room": ["a"]})), TokenError::Claim(Claim::Room));
}

#[test]
fn a_user_joins_as_its_token_says() {
    let five = user(&json!({"sub": 5}));
    assert!(five.are_of(&UserId::from(5), Some(Role::Teacher)) && five.are_of(&id("5"), Some(Role::Student)));
    assert!(!five.are_of(&id("6"), Some(Role::Student)));
    let teacher = user(&json!({"sub": "5", "role": "teacher"}));
    assert!(teacher.are_of(&UserId::from(5), Some(Role::Teacher)));
    assert!(!teacher.are_of(&UserId::from(5), Some(Role::Student)));
    let unheard = user(&json!({"sub": 5, "role": "Teacher"}));
    assert!(!unheard.allow(Role::Teacher) && !unheard.allow(Role::Student), "a role that nobody has fits nobody");
}

#[test]
fn a_room_token_is_for_its_room_and_its_user() {
    let member = user(&json!({"sub": 5, "rank": 20}));
    let of = |claims: Value| room::verified(&member, &room(&claims), "r");
    let plain = of(json!({"room": "r"})).expect("it fits");
    assert_eq!((plain.user, plain.rank, plain.until), (id("5"), 20, None));
    let ranked = of(json!({"room": "r", "sub": "5", "rank": 100, "exp": NOW + 1})).expect("it fits");
    assert_eq!((ranked.rank, ranked.until), (100, Some(Duration::from_secs(NOW + 31))));
    assert_eq!(of(json!({"room": "s"})), Err(TokenError::OtherRoom));
    assert_eq!(of(json!({"room": "r", "sub": 6})), Err(TokenError::OtherUser));
    let nobody = user(&json!({"sub": 5}));
    assert_eq!(room::verified(&nobody, &room(&json!({"room": "r"})), "r").expect("it fits").rank, 10);
}

#[tokio::test]
async fn a_room_token_opens_its_room_and_no_socket() {
    let verifier = Verifier::new(vec![Key::secret(SECRET).expect("a key")], None, rules());
    let auth = Auth::Jwt(verifier.into());
    let token = |claims: Value| signed(SECRET, &claims);
    let for_room = token(json!({"room": "r", "sub": 5}));
    assert_eq!(auth.admit(Some(for_room.clone())).await, Err(TokenError::OfRoom));
    assert_eq!(auth.admit(None).await, Err(TokenError::Missing));
    let socket = auth.admit(Some(token(json!({"sub": 5})))).await.expect("a socket");

    let join = |token: Option<Token>| RoomJoin { user: Some(id("6")), rank: Some(100), token };
    let member = auth.join_room(&socket, "r", &join(Some(for_room.clone()))).await.expect("a member");
    assert_eq!((&member.user, member.rank), (&id("5"), 10), "what the join says by itself is not believed");
    for (given, error) in [
        (None, TokenError::Missing),
        (Some(token(json!({"sub": 5}))), TokenError::Without(Claim::Room)),
        (Some(token(json!({"room": "s"}))), TokenError::OtherRoom),
        (Some(token(json!({"room": "r", "exp": 5}))), TokenError::Expired),
    ] {
        assert_eq!(auth.join_room(&socket, "r", &join(given)).await, Err(error));
    }

    let renew = async |claims: Value| auth.renew_in_room(&socket, "r", &token(claims)).await;
    assert_eq!(renew(json!({"room": "r", "rank": 50})).await, Ok(Renewed::Room(None)));
    let later = json!({"room": "r", "sub": 5, "exp": 4_000_000_000u64});
    assert!(matches!(renew(later).await, Ok(Renewed::Room(Some(until))) if until > Instant::now()));
    assert!(matches!(renew(json!({"sub": "5"})).await, Ok(Renewed::User(Identity::Verified(_)))));
    assert_eq!(renew(json!({"sub": 6})).await, Err(TokenError::OtherUser));
    assert_eq!(renew(json!({"room": "s"})).await, Err(TokenError::OtherRoom));
    assert_eq!(renew(json!({"room": "r", "exp": 5})).await, Err(TokenError::Expired));
}

#[test]
fn where_nothing_is_verified_people_are_who_they_say() {
    let names = ClaimNames::default();
    let token = |claims: Value| Some(signed(b"nobody checks", &claims));
    let who = |user_token: Option<Token>, join: RoomJoin| {
        let who = room::believed(user_token.as_ref(), &join, &names, "1a2b");
        (who.user.to_string(), who.rank)
    };
    let join = RoomJoin { user: Some(id("5")), rank: Some(100), token: token(json!({"sub": 7, "rank": 1})) };
    assert_eq!(who(token(json!({"sub": 6, "rank": 50})), join), ("5".into(), 100));
    let join = RoomJoin { token: token(json!({"sub": 7, "rank": 1})), ..RoomJoin::default() };
    assert_eq!(who(token(json!({"sub": 6, "rank": 50})), join.clone()), ("6".into(), 1));
    assert_eq!(who(None, join), ("7".into(), 1));
    assert_eq!(who(Token::new("ada"), RoomJoin::default()), ("ada".into(), 10));
    assert_eq!(who(None, RoomJoin::default()), ("anon-1a2b".into(), 10));
    assert_eq!(who(Token::new(&"x".repeat(200)), RoomJoin::default()), ("anon-1a2b".into(), 10), "no id");
}

#[test]
fn keys_that_cannot_be_used() {
    for (pem, fits) in [
        (&pem!("rsa.pub")[..], true),
        (&pem!("rsa")[..], false),
        (&pem!("ec")[..], false),
        (&pem!("p384.pub")[..], false),
        (&b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"[..], false),
        (&b""[..], false),
        (&b"\xff"[..], false),
    ] {
        assert_eq!(Key::public(pem).is_ok(), fits, "{}", String::from_utf8_lossy(pem));
    }
    assert!(Key::secret(b" \n").is_err());
    let key = Key::secret(&[SECRET, b"\r\n"].concat()).expect("a key");
    assert!(check_with(&key, &rules(), &signed(SECRET, &json!({"sub": 5}))).is_ok(), "an editor's last newline");
}

#[test]
fn a_set_gives_the_keys_that_verify() {
    let ours = jwk(pem!("rsa"), Some("k1"));
    let with = |name: &str, value: Value| {
        let mut jwk = ours.clone();
        jwk[name] = value;
        jwk
    };
    let set = |keys: Value| Key::set(json!({"keys": keys}).to_string().as_bytes());
    let secret = json!({"kty": "oct", "k": "AAAA", "alg": "HS256", "kid": "s"});
    let (encrypts, other) = (with("use", json!("enc")), with("alg", json!("RS512")));
    let odd = json!({"kty": "what is this"});
    let keys = set(json!([secret, encrypts, other, odd, 5, ours])).expect("one key");
    assert_eq!(
        keys.iter().map(|key| (key.kid.as_deref(), key.algorithm)).collect::<Vec<_>>(),
        [(Some("k1"), Algorithm::RS256)]
    );
    assert!(set(json!([secret])).is_err() && set(json!([])).is_err() && Key::set(b"<html>").is_err());
    assert!(set(json!(vec![ours.clone(); 65])).is_err());
    let _typed: JwkSet = serde_json::from_value(json!({"keys": [ours]})).expect("it is a JWKS");

    let check = |token: &Token| verify(token, keys.iter(), &rules(), Duration::from_secs(NOW)).err();
    assert_eq!(check(&rsa_token(false, Some("k1"))), None);
    assert_eq!(check(&rsa_token(false, None)), None, "a token need not name its key");
    assert_eq!(check(&rsa_token(false, Some("k2"))), Some(TokenError::UnknownKey));
    assert_eq!(check(&rsa_token(true, Some("k1"))), Some(TokenError::Signature));
    // A key of a set is no secret either.
    let n = ours["n"].as_str().expect("text");
    assert_eq!(check(&signed(n.as_bytes(), &json!({"sub": 5}))), Some(TokenError::Algorithm));
}
