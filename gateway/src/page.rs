//! The page for browsers: what is built of `web/` is in this program, and sent as it is there.
//!
//! Nothing is compressed, hashed or put together for a request: all of that is done by the build, or once at the start.

mod encoding;
mod file;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use bytes::Bytes;
use rust_embed::Embed;
use switchboard_contract::version::version;

use self::encoding::Encoding;
pub use self::file::File;
use self::file::Kind;
use crate::auth::Auth;

/// `npm run build`'s files; none where that was not run before this was compiled.
#[derive(Embed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Built;

/// What browsers get in place of a page that was not built.
const MISSING: &str = include_str!("page/missing.html");
const INDEX: &str = "index.html";
/// Files whose names change with what is in them.
const ASSETS: &str = "assets/";

/// The page as this gateway serves it.
pub struct Page {
    /// What `GET /` has for browsers.
    pub index: Arc<File>,
    /// With their paths.
    assets: Vec<(String, Arc<File>)>,
}

impl Page {
    /// The page that is in this program. It is told how tokens are treated, and which version this is.
    pub fn built(auth: &Auth) -> Page {
        let auth = match auth {
            Auth::Open(_) => "open",
            Auth::Jwt(_) => "jwt",
        };
        Page::of(&built(), &[("switchboard-auth", auth), ("switchboard-version", version())])
    }

    /// The page of these files, or how to get it, with the contents of places in the index.
    fn of(files: &BTreeMap<String, Bytes>, told: &[(&str, &str)]) -> Page {
        let index = files.get(INDEX).map_or(MISSING.into(), |index| String::from_utf8_lossy(index));
        let index = told.iter().fold(index.into_owned(), |index, (name, content)| filled_in(&index, name, content));
        let assets = files.iter().filter(|(name, _)| name.starts_with(ASSETS) && Encoding::of_file(name).is_none());
        let assets = assets.map(|(name, plain)| {
            let compressed = Encoding::ALL
                .into_iter()
                .filter_map(|encoding| Some((encoding, files.get(&format!("{name}{}", encoding.suffix()))?.clone())));
            (format!("/{name}"), Arc::new(File::new(Kind::Asset, name, plain.clone(), compressed)))
        });
        // Compressed it would be one packet, too.
        Page { index: Arc::new(File::new(Kind::Index, INDEX, index.into(), [])), assets: assets.collect() }
    }

    /// The routes of all but the index.
    pub fn assets(self) -> Router {
        self.assets.into_iter().fold(Router::new(), |router, (path, file)| {
            router.route(&path, get(async move |headers: HeaderMap| file.answer(&headers)))
        })
    }
}

/// The files of the built page, by name.
fn built() -> BTreeMap<String, Bytes> {
    let bytes = |data| match data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => data.into(),
    };
    Built::iter().filter_map(|name| Some((name.to_string(), bytes(Built::get(&name)?.data)))).collect()
}

/// A page whose `<meta>` of that name has that content.
fn filled_in(page: &str, name: &str, content: &str) -> String {
    page.replacen(&place(name, ""), &place(name, content), 1)
}

fn place(name: &str, content: &str) -> String {
    format!(r#"<meta name="{name}" content="{content}""#)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use switchboard_contract::testing::skipped;
    use tower::ServiceExt as _;

    use super::*;

    /// All of the page, uncompressed. Bytes.
    const PAGE_BYTES_MAX: usize = 100_000;

    async fn shown(page: &Page) -> String {
        let response = page.index.answer(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.into()).expect("text")
    }

    #[tokio::test]
    async fn without_the_page_it_is_said_how_to_get_it() {
        let page = Page::of(&BTreeMap::new(), &[("switchboard-auth", "open")]);
        let shown = shown(&page).await;
        for word in ["built without", "https://nodejs.org", "20.19", "make run"] {
            assert!(shown.contains(word), "{shown}");
        }
        assert!(!shown.contains("style"), "the policy does not allow it: {shown}");
        assert!(page.assets.is_empty());
    }

    #[tokio::test]
    async fn the_index_is_told_and_assets_stand_beside_it() {
        let index = r#"<meta name="a" content=""><meta name="b" content="" /><meta name="c" content="">"#;
        let files = [
            (INDEX, index),
            ("assets/x-1.js", "x"),
            ("assets/x-1.js.br", "br"),
            ("assets/y-1.css", "y"),
            ("readme.txt", "nobody's"),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.into())).into();
        let page = Page::of(&files, &[("a", "jwt"), ("b", "0.1.0+9854c7c")]);
        let told =
            r#"<meta name="a" content="jwt"><meta name="b" content="0.1.0+9854c7c" /><meta name="c" content="">"#;
        assert_eq!(shown(&page).await, told);

        let router = page.assets();
        for (method, path, accepted, status, body) in [
            ("GET", "/assets/x-1.js", "br", 200, "br"),
            ("GET", "/assets/x-1.js", "gzip", 200, "x"),
            ("HEAD", "/assets/x-1.js", "", 200, ""),
            ("GET", "/assets/y-1.css", "br, gzip", 200, "y"),
            ("POST", "/assets/y-1.css", "", 405, ""),
            ("GET", "/assets/x-1.js.br", "", 404, ""),
            ("GET", "/assets/x-2.js", "", 404, ""),
            ("GET", "/assets/", "", 404, ""),
            ("GET", "/assets/../index.html", "", 404, ""),
            ("GET", "/index.html", "", 404, ""),
            ("GET", "/readme.txt", "", 404, ""),
        ] {
            let request = Request::builder().method(method).uri(path).header("accept-encoding", accepted);
            let request = request.body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), body, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn all_of_the_built_page_is_served_and_it_is_small() {
        let files = built();
        let Some(index) = files.get(INDEX) else { return skipped("the page (make run builds it, where Node is)") };
        let index = String::from_utf8(index.to_vec()).expect("text");
        for name in ["switchboard-auth", "switchboard-version"] {
            assert_eq!(index.matches(&place(name, "")).count(), 1, "there is one place for {name}: {index}");
        }
        let mut bytes = 0;
        for (name, file) in &files {
            let of = Encoding::of_file(name).and_then(|encoding| name.strip_suffix(encoding.suffix()));
            if let Some(of) = of {
                assert!(files.get(of).is_some_and(|plain| plain.len() > file.len()), "{name}");
                continue;
            }
            assert!(name == INDEX || name.starts_with(ASSETS), "{name} is served nowhere");
            assert_ne!(file::content_type(name), file::UNKNOWN, "{name} has no type");
            bytes += file.len();
        }
        assert!(bytes <= PAGE_BYTES_MAX, "the page has {bytes} bytes");
        let page = Page::of(&files, &[]);
        for (path, file) in &page.assets {
            // Compressed, less would not be fewer packets.
            let large = files[&path[1..]].len() > 1_000;
            assert!(!large || file.encodings().count() == Encoding::ALL.len(), "{path} is not compressed");
        }
        assert_eq!(shown(&page).await, index);
        // It panics at a path that no route can have.
        let _ = page.assets();
    }
}
