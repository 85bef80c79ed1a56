//! A file of the page, with all that is said about it in HTTP.

use std::path::Path;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::encoding::{Encoding, Wanted};

/// Only what comes from this gateway: no script, style or connection of anybody else, and nothing inline. `'self'` is
/// `ws://` and `wss://` of the same host and port, too.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Nothing is permitted. There is no word for all features: these are what browsers have.
const PERMISSIONS: &str = "accelerometer=(), autoplay=(), camera=(), clipboard-read=(), clipboard-write=(), \
    display-capture=(), encrypted-media=(), fullscreen=(), gamepad=(), geolocation=(), gyroscope=(), hid=(), \
    idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), \
    publickey-credentials-get=(), screen-wake-lock=(), serial=(), storage-access=(), sync-xhr=(), usb=(), \
    window-management=(), xr-spatial-tracking=()";

/// What each answer has that holds anything of the page.
const STRICT: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), PERMISSIONS),
];

/// The type of what has none.
pub(super) const UNKNOWN: &str = "application/octet-stream";

/// What a file is to caches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The same name for every version, beside the counts: the gateway is asked each time whether it still is the same.
    Index,
    /// Another name for every version.
    Asset,
}

impl Kind {
    fn headers(self) -> [(HeaderName, &'static str); 2] {
        match self {
            Kind::Index => [(CACHE_CONTROL, "no-cache"), (VARY, "accept")],
            Kind::Asset => [(CACHE_CONTROL, "public, max-age=31536000, immutable"), (VARY, "accept-encoding")],
        }
    }
}

/// A file, and how it is sent.
#[derive(Debug)]
pub struct File {
    plain: Form,
    compressed: Vec<(Encoding, Form)>,
    content_type: &'static str,
    /// Those of every answer.
    headers: HeaderMap,
}

/// A file as it is, or compressed.
#[derive(Debug)]
struct Form {
    bytes: Bytes,
    etag: String,
}

impl Form {
    fn new(bytes: Bytes) -> Form {
        Form { etag: format!(r#""{:032x}""#, xxh3_128(&bytes)), bytes }
    }
}

impl File {
    /// The file of this name, as it is, and compressed.
    pub(super) fn new(
        kind: Kind,
        name: &str,
        plain: Bytes,
        compressed: impl IntoIterator<Item = (Encoding, Bytes)>,
    ) -> File {
        let headers = kind.headers().into_iter().chain(STRICT);
        File {
            plain: Form::new(plain),
            compressed: compressed.into_iter().map(|(encoding, bytes)| (encoding, Form::new(bytes))).collect(),
            content_type: content_type(name),
            headers: headers.map(|(name, value)| (name, HeaderValue::from_static(value))).collect(),
        }
    }

    /// How it is there beside as it is.
    pub(super) fn encodings(&self) -> impl Iterator<Item = Encoding> {
        self.compressed.iter().map(|(encoding, _)| *encoding)
    }

    /// The answer to a `GET` or `HEAD` with these headers.
    pub fn answer(&self, request: &HeaderMap) -> Response {
        let best = Wanted::of(request).best(self.encodings());
        let chosen = self.compressed.iter().find(|(encoding, _)| Some(*encoding) == best);
        let form = chosen.map_or(&self.plain, |(_, form)| form);
        let (headers, etag) = (self.headers.clone(), [(ETAG, form.etag.clone())]);
        if is_known(request, &form.etag) {
            return (StatusCode::NOT_MODIFIED, headers, etag).into_response();
        }
        let encoding = chosen.map(|(encoding, _)| [(CONTENT_ENCODING, encoding.name())]);
        let content_type = [(CONTENT_TYPE, self.content_type)];
        (headers, etag, content_type, encoding, form.bytes.clone()).into_response()
    }
}

/// Whether who asks has it already: a weak tag will do (RFC 9110, 13.1.2), as proxies make of ours when they compress.
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let lines = request.get_all(IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// What is in the file of this name.
pub(super) fn content_type(name: &str) -> &'static str {
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::ACCEPT_ENCODING;
    use http_body_util::BodyExt as _;

    use super::*;

    fn file() -> File {
        let compressed = [(Encoding::Brotli, "br".into()), (Encoding::Gzip, "gzip".into())];
        File::new(Kind::Asset, "assets/index.js", "plain".into(), compressed)
    }

    fn headers<const N: usize>(lines: [(HeaderName, &str); N]) -> HeaderMap {
        lines.into_iter().map(|(name, value)| (name, value.parse().expect("a value"))).collect()
    }

    fn said(response: &Response, name: impl Into<HeaderName>) -> Option<&str> {
        response.headers().get(name.into()).map(|value| value.to_str().expect("text"))
    }

    async fn body(response: Response) -> Bytes {
        response.into_body().collect().await.expect("a body").to_bytes()
    }

    #[tokio::test]
    async fn each_form_has_a_tag_of_its_own() {
        let file = file();
        let mut tags = Vec::new();
        for (accepted, encoding, wanted) in
            [("br, gzip", Some("br"), "br"), ("gzip", Some("gzip"), "gzip"), ("zstd", None, "plain")]
        {
            let response = file.answer(&headers([(ACCEPT_ENCODING, accepted)]));
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(said(&response, CONTENT_ENCODING), encoding);
            assert_eq!(said(&response, CONTENT_TYPE), Some("text/javascript; charset=utf-8"));
            assert_eq!(said(&response, VARY), Some("accept-encoding"));
            let tag = said(&response, ETAG).expect("a tag").to_owned();
            assert!(tag.len() == 34 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
            assert!(!tags.contains(&tag), "{tag}");
            tags.push(tag);
            assert_eq!(body(response).await, wanted);
        }
    }

    #[tokio::test]
    async fn what_somebody_has_is_not_sent_again() {
        let file = file();
        let tag = said(&file.answer(&HeaderMap::new()), ETAG).expect("a tag").to_owned();
        for (known, wanted) in [
            (tag.clone(), true),
            (format!("W/{tag}"), true),
            (format!("\"other\", {tag}"), true),
            (format!("\"other\",W/{tag}, \"another\""), true),
            ("*".into(), true),
            ("\"other\"".into(), false),
            (tag.trim_matches('"').into(), false),
            (format!("w/{tag}"), false),
            (String::new(), false),
        ] {
            let response = file.answer(&headers([(IF_NONE_MATCH, known.as_str())]));
            let status = if wanted { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            assert_eq!(response.status(), status, "{known}");
            assert_eq!(said(&response, ETAG), Some(tag.as_str()));
            assert_eq!(said(&response, CACHE_CONTROL), Some("public, max-age=31536000, immutable"));
            assert_eq!(said(&response, CONTENT_TYPE).is_some(), !wanted, "{known}");
            assert_eq!(body(response).await, if wanted { "" } else { "plain" }, "{known}");
        }
        // It may come in two lines.
        let two = headers([(IF_NONE_MATCH, "\"other\""), (IF_NONE_MATCH, &tag)]);
        assert_eq!(file.answer(&two).status(), StatusCode::NOT_MODIFIED);
        // Who has it as it is does not have it compressed.
        let other = headers([(IF_NONE_MATCH, &tag), (ACCEPT_ENCODING, "br")]);
        assert_eq!(file.answer(&other).status(), StatusCode::OK);
    }

    #[test]
    fn text_has_its_charset() {
        for (name, wanted) in [
            ("index.html", "text/html; charset=utf-8"),
            ("assets/index-BpQ9Ap5V.js", "text/javascript; charset=utf-8"),
            ("assets/index-b.c_d.css", "text/css; charset=utf-8"),
            ("assets/icon.svg", "image/svg+xml"),
            ("assets/css", UNKNOWN),
            ("assets/a.js.map", UNKNOWN),
        ] {
            assert_eq!(content_type(name), wanted, "{name}");
        }
    }
}
