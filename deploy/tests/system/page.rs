//! The page that a gateway serves, as browsers and caches ask for it.

use std::io::Read as _;
use std::path::PathBuf;

use hyper::HeaderMap;
use hyper::body::Bytes;
use switchboard::token::Key;
use switchboard_contract::testing::skipped;
use switchboard_contract::version::version;

use crate::harness::{Shape, System};
use crate::repository;

/// What browsers send for a page.
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
/// What every answer with a part of the page has.
const STRICT: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The folder of the built page; `None`: it was not built, and the test is skipped.
pub(crate) fn built() -> Option<PathBuf> {
    let folder = repository::root().join("gateway/web/dist");
    if !folder.join("index.html").exists() {
        skipped("the page (make test builds it, where Node is)");
        return None;
    }
    Some(folder)
}

/// A system of one gateway with these flags.
async fn system(gateway: &[&str]) -> Option<System> {
    System::of(Shape { gateways: 1, gateway, ..Shape::default() }).await
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("text"))
}

fn is_strict(headers: &HeaderMap) {
    for (name, value) in STRICT {
        assert_eq!(said(headers, name), Some(value), "{headers:?}");
    }
    let permissions = said(headers, "permissions-policy").expect("a policy");
    assert!(permissions.split(", ").all(|one| one.ends_with("=()")), "something is permitted: {permissions}");
}

/// The page with what a gateway fills in.
fn told(index: &str, auth: &str) -> String {
    let content = |name: &str, content: &str| format!(r#"<meta name="{name}" content="{content}""#);
    [("switchboard-auth", auth), ("switchboard-version", version())].into_iter().fold(
        index.to_owned(),
        |index, (name, filled)| {
            assert!(index.contains(&content(name, "")), "{index}");
            index.replace(&content(name, ""), &content(name, filled))
        },
    )
}

fn decompressed(encoding: Option<&str>, body: &Bytes) -> Vec<u8> {
    let mut plain = Vec::new();
    match encoding {
        None => plain.extend_from_slice(body),
        Some("br") => {
            _ = brotli_decompressor::Decompressor::new(&body[..], 4096).read_to_end(&mut plain).expect("brotli")
        }
        Some("gzip") => _ = flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip"),
        Some(other) => panic!("nobody asked for {other}"),
    }
    plain
}

#[tokio::test]
async fn a_browser_gets_the_page_and_everybody_else_the_counts() {
    let Some(folder) = built() else { return };
    let Some(system) = system(&[]).await else { return };
    let index = std::fs::read_to_string(folder.join("index.html")).expect("the page");

    let page = system.ask(0, "GET", "/", &[BROWSER, ("accept-encoding", "gzip, deflate, br, zstd")], "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.body, told(&index, "open"), "another page was there when the gateway was built");
    for (name, value) in
        [("content-type", "text/html; charset=utf-8"), ("cache-control", "no-cache"), ("vary", "accept")]
    {
        assert_eq!(page.header(name), Some(value));
    }
    is_strict(&page.headers);
    let (tag, length) = (page.header("etag").expect("a tag"), page.body.len().to_string());
    assert!(tag.starts_with('"'), "it is strong: {tag}");

    let head = system.ask(0, "HEAD", "/", &[BROWSER], "").await;
    assert_eq!((head.status, head.body.as_str(), head.header("etag")), (200, "", Some(tag)));
    assert_eq!(head.header("content-length"), Some(length.as_str()));

    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
        let same = system.ask(0, "GET", "/", &[BROWSER, ("if-none-match", &known)], "").await;
        assert_eq!((same.status, same.body.as_str(), same.header("etag")), (304, "", Some(tag)), "{known}");
        assert_eq!(same.header("content-length"), None, "it would be that of the page");
        assert_eq!((same.header("cache-control"), same.header("vary")), (Some("no-cache"), Some("accept")));
    }
    let other = system.ask(0, "GET", "/", &[BROWSER, ("if-none-match", "\"x\"")], "").await;
    assert_eq!((other.status, &other.body), (200, &page.body));

    for accept in [&[][..], &[("accept", "application/json")], &[("accept", "*/*"), ("if-none-match", tag)]] {
        let counts = system.ask(0, "GET", "/", accept, "").await;
        assert_eq!(
            (counts.status, counts.json()),
            (200, serde_json::json!({"teachers": 0, "students": 0, "chats": 0}))
        );
        assert_eq!((counts.header("vary"), counts.header("etag")), (Some("accept"), None));
    }
    for path in ["/index.html", "/assets", "/assets/", "/assets/none.js", "/assets/../index.html", "/favicon.ico"] {
        let none = system.ask(0, "GET", path, &[BROWSER], "").await;
        assert_eq!((none.status, none.body.as_str(), none.header("cache-control")), (404, "", None), "{path}");
    }
}

#[tokio::test]
async fn assets_are_sent_compressed_and_kept_for_good() {
    let Some(folder) = built() else { return };
    let Some(system) = system(&[]).await else { return };
    let index = std::fs::read_to_string(folder.join("index.html")).expect("the page");
    let names = std::fs::read_dir(folder.join("assets")).expect("assets").map(|entry| entry.expect("an entry"));
    let names: Vec<_> = names.map(|entry| entry.file_name().into_string().expect("text")).collect();
    let is_there = |name: &str, suffix: &str| names.contains(&format!("{name}{suffix}"));
    let mut compressed = 0;
    for name in names.iter().filter(|name| !name.ends_with(".br") && !name.ends_with(".gz")) {
        let path = format!("/assets/{name}");
        let plain = std::fs::read(folder.join("assets").join(name)).expect("the file");
        let (br, gzip) = (is_there(name, ".br").then_some("br"), is_there(name, ".gz").then_some("gzip"));
        let mut tags = Vec::new();
        for (accepted, encoding) in [
            (None, None),
            (Some("gzip, deflate, br, zstd"), br.or(gzip)),
            (Some("br;q=0, gzip"), gzip),
            (Some("br;q=0.1, gzip;q=0"), br),
            (Some("br;q=0, gzip;q=0"), None),
            (Some("br;q=0, *;q=0"), None),
            (Some("identity"), None),
        ] {
            let accepted: Vec<_> = accepted.map(|accepted| ("accept-encoding", accepted)).into_iter().collect();
            let (status, headers, body) = system.ask_bytes(0, "GET", &path, &accepted, "").await;
            assert_eq!((status, said(&headers, "content-encoding")), (200, encoding), "{path} {accepted:?}");
            assert_eq!(decompressed(encoding, &body), plain, "{path} {accepted:?}");
            assert_eq!(said(&headers, "vary"), Some("accept-encoding"));
            assert_eq!(said(&headers, "cache-control"), Some("public, max-age=31536000, immutable"));
            let content_type = said(&headers, "content-type").expect("a type");
            let charset = [".js", ".css"].iter().any(|text| name.ends_with(text));
            assert_eq!(content_type.ends_with("; charset=utf-8"), charset, "{path}: {content_type}");
            is_strict(&headers);

            let tag = said(&headers, "etag").expect("a tag").to_owned();
            let conditional = [&accepted[..], &[("if-none-match", tag.as_str())]].concat();
            let (status, headers, nothing) = system.ask_bytes(0, "GET", &path, &conditional, "").await;
            assert_eq!((status, said(&headers, "etag"), nothing.len()), (304, Some(tag.as_str()), 0));
            let (status, headers, nothing) = system.ask_bytes(0, "HEAD", &path, &accepted, "").await;
            let length = body.len().to_string();
            assert_eq!((status, said(&headers, "content-length"), nothing.len()), (200, Some(length.as_str()), 0));
            assert_eq!((said(&headers, "content-encoding"), said(&headers, "etag")), (encoding, Some(tag.as_str())));
            tags.push((encoding, tag));
        }
        tags.sort();
        tags.dedup();
        let forms = 1 + usize::from(br.is_some()) + usize::from(gzip.is_some());
        assert_eq!(tags.len(), forms, "each form has one tag: {tags:?}");
        tags.dedup_by_key(|(_, tag)| tag.clone());
        assert_eq!(tags.len(), forms, "no two have the same: {tags:?}");
        compressed += forms - 1;
        for form in [name.clone() + ".br", name.clone() + ".gz"] {
            assert_eq!(system.ask(0, "GET", &format!("/assets/{form}"), &[], "").await.status, 404, "{form}");
        }
    }
    assert!(compressed > 0, "nothing is compressed: {names:?}");
    // Whatever the page loads is one of these.
    let loaded: Vec<_> = index.split('"').filter_map(|text| text.split_once("assets/")).map(|(_, name)| name).collect();
    assert!(!loaded.is_empty() && loaded.iter().all(|name| is_there(name, "")), "{loaded:?} of {names:?}");
}

#[tokio::test]
async fn the_page_is_told_that_tokens_are_verified() {
    let Some(folder) = built() else { return };
    let keys = tempfile::tempdir().expect("a folder");
    Key::of(keys.path()).expect("a key");
    let secret = Key::path(keys.path());
    let flags = ["--auth", "jwt", "--jwt-secret-file", secret.to_str().expect("text")];
    let Some(system) = system(&flags).await else { return };
    let index = std::fs::read_to_string(folder.join("index.html")).expect("the page");
    assert_eq!(system.ask(0, "GET", "/", &[BROWSER], "").await.body, told(&index, "jwt"));
}
