//! Encodings of a file, and which of them a client wants.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;

/// How a file is compressed. The better one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Encoding {
    Gzip,
    Brotli,
}

impl Encoding {
    pub(super) const ALL: [Encoding; 2] = [Encoding::Gzip, Encoding::Brotli];

    /// As HTTP calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Encoding::Brotli => "br",
            Encoding::Gzip => "gzip",
        }
    }

    /// How names of files end that are compressed so.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Encoding::Brotli => ".br",
            Encoding::Gzip => ".gz",
        }
    }

    /// How the file of this name is compressed.
    pub(super) fn of_file(name: &str) -> Option<Encoding> {
        Self::ALL.into_iter().find(|encoding| name.ends_with(encoding.suffix()))
    }
}

/// What a client says of the encodings that it takes (RFC 9110, 12.5.3): weights in thousandths.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any_other: Option<u16>,
}

impl Wanted {
    /// What a request says. What cannot be read in it counts as not said.
    pub(super) fn of(headers: &HeaderMap) -> Wanted {
        let mut wanted = Wanted::default();
        let lines = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|line| line.to_str().ok());
        for item in lines.flat_map(|line| line.split(',')) {
            let (coding, weight) = item.split_once(';').unwrap_or((item, "q=1"));
            let place = match coding.trim().to_ascii_lowercase().as_str() {
                "br" => &mut wanted.brotli,
                "gzip" | "x-gzip" => &mut wanted.gzip,
                "identity" => &mut wanted.identity,
                "*" => &mut wanted.any_other,
                _ => continue,
            };
            *place = thousandths(weight).or(*place);
        }
        wanted
    }

    /// The one to send of those that there are; `None`: the file as it is.
    pub(super) fn best(&self, there: impl Iterator<Item = Encoding>) -> Option<Encoding> {
        let least = self.identity.unwrap_or_default().max(1);
        let weighed = there.map(|encoding| (self.weight(encoding), encoding));
        weighed.filter(|(weight, _)| *weight >= least).max().map(|(_, encoding)| encoding)
    }

    fn weight(&self, encoding: Encoding) -> u16 {
        let said = match encoding {
            Encoding::Brotli => self.brotli,
            Encoding::Gzip => self.gzip,
        };
        said.or(self.any_other).unwrap_or_default()
    }
}

/// The weight in `q=0.5`.
fn thousandths(weight: &str) -> Option<u16> {
    let (name, value) = weight.split_once('=')?;
    let value: f32 = value.trim().parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
    name.trim().eq_ignore_ascii_case("q").then_some((value * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accepted: &[&str], there: &[Encoding]) -> Option<Encoding> {
        let headers = accepted.iter().map(|line| (ACCEPT_ENCODING, line.parse().expect("a value"))).collect();
        Wanted::of(&headers).best(there.iter().copied())
    }

    #[test]
    fn the_best_that_a_client_takes_is_sent() {
        let (br, gzip) = (Some(Encoding::Brotli), Some(Encoding::Gzip));
        for (accepted, wanted) in [
            ("gzip, deflate, br, zstd", br),
            ("br;q=1.0, gzip;q=1.0", br),
            ("gzip, deflate", gzip),
            ("x-gzip", gzip),
            ("GZip , BR", br),
            ("br;q=0.5, gzip;q=0.8", gzip),
            ("br;q=0.5,gzip;q=0.499", br),
            ("br ; Q=0.001", br),
            ("br;q=0, gzip", gzip),
            ("br;q=0.000, gzip;q=0", None),
            ("br;q=0, *", gzip),
            ("*", br),
            ("*;q=0", None),
            ("gzip, *;q=0", gzip),
            ("*;q=0.1, gzip;q=0.2", gzip),
            ("br;q=0.5, identity;q=0.8", None),
            ("br;q=0.5, identity;q=0.5", br),
            ("identity;q=0, br;q=0.1", br),
            ("identity;q=0", None),
            ("identity", None),
            ("zstd, deflate", None),
            ("brotli, gz", None),
            ("", None),
            // What is no weight is as if it were not there.
            ("br;q=2, gzip", gzip),
            ("br;q=NaN", None),
            ("br;q=-1", None),
            ("br;level=4", None),
            ("br;;, gzip;q=\"1\", ;q=1", None),
        ] {
            assert_eq!(best(&[accepted], &Encoding::ALL), wanted, "{accepted:?}");
        }
        assert_eq!(best(&[], &Encoding::ALL), None);
        // One header may come in several lines.
        assert_eq!(best(&["deflate", "gzip"], &Encoding::ALL), gzip);
        assert_eq!(best(&["br, gzip"], &[Encoding::Gzip]), gzip);
        assert_eq!(best(&["br, gzip"], &[]), None);
    }
}
