//! How long phoenix.js waits before it tries again.

use std::time::Duration;

/// After the first, second… loss or failed attempt of a socket. Milliseconds.
const SOCKET_MS: [u64; 9] = [10, 50, 100, 150, 200, 250, 500, 1000, 2000];
/// After the first, second… refused join of a channel. Milliseconds.
const JOIN_MS: [u64; 2] = [1000, 2000];
/// After all of these. Milliseconds.
const LATER_MS: u64 = 5000;

/// Before a socket is opened again; `tries` have failed since it was last open.
pub(in crate::load) fn socket(tries: usize) -> Duration {
    Duration::from_millis(SOCKET_MS.get(tries).copied().unwrap_or(LATER_MS))
}

/// Before a channel is joined again; `tries` were refused before the last one.
pub(in crate::load) fn join(tries: usize) -> Duration {
    Duration::from_millis(JOIN_MS.get(tries).copied().unwrap_or(LATER_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_end_at_five_seconds() {
        assert_eq!([0, 1, 8, 9, 100].map(|tries| socket(tries).as_millis()), [10, 50, 2000, 5000, 5000]);
        assert_eq!([0, 1, 2, 100].map(|tries| join(tries).as_millis()), [1000, 2000, 5000, 5000]);
    }
}
