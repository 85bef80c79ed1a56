//! Whether something grows. Pure.
//!
//! What was built up while the population arrived is let pass: a series is looked at behind the warm-up, in five equal
//! parts, and the median of the last is compared with that of the second. Medians are blind to single spikes, and to
//! saw-teeth that are shorter than such a part.

use serde::Serialize;

/// Seconds since the run began, and what was seen.
pub(super) type Point = (f64, f64);

/// Fewer points in a part say nothing.
const POINTS_MIN: usize = 3;

/// How much more there may be in the end: the larger of a part of what there was, and of so much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) part: f64,
    pub(super) more: f64,
}

/// A series in four numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Trend {
    /// The first point.
    pub(super) start: f64,
    /// The median soon after the warm-up.
    pub(super) warm: f64,
    /// The median in the end.
    pub(super) end: f64,
    pub(super) max: f64,
    /// Whether it grew beyond its bound; `None`: it has none, or too few points.
    pub(super) grows: Option<bool>,
}

/// What has become of a series from its first point to `until`, with a warm-up of so many seconds.
pub(super) fn trend(points: &[Point], warm_up: f64, until: f64, bound: Option<Bound>) -> Trend {
    let part = (until - warm_up).max(0.0) / 5.0;
    let median_from = |from: f64, to: f64| {
        let mut values: Vec<f64> = points.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, v)| *v).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.get(values.len() / 2).copied().unwrap_or(0.0);
        (middle, values.len() >= POINTS_MIN)
    };
    let (warm, enough) = median_from(warm_up + part, warm_up + 2.0 * part);
    let (end, enough_too) = median_from(until - part, until);
    Trend {
        start: points.first().map_or(0.0, |(_, value)| *value),
        warm,
        end,
        max: points.iter().map(|(_, value)| *value).fold(0.0, f64::max),
        grows: bound.filter(|_| enough && enough_too).map(|bound| end - warm > bound.more.max(warm * bound.part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { part: 0.1, more: 2.0 };

    /// 100 points, one a second, with a warm-up of 25 s.
    fn grows(value: impl Fn(f64) -> f64) -> Option<bool> {
        let points: Vec<Point> = (0..=100).map(|n| (f64::from(n), value(f64::from(n)))).collect();
        trend(&points, 25.0, 100.0, Some(BOUND)).grows
    }

    #[test]
    fn what_is_steady_does_not_grow() {
        assert_eq!(grows(|_| 50.0), Some(false));
        assert_eq!(grows(|at| 50.0 - at / 10.0), Some(false), "it shrinks");
        assert_eq!(grows(|at| 50.0 + at / 20.0), Some(false), "within a tenth");
        assert_eq!(grows(|at| at / 50.0), Some(false), "within the constant");
    }

    #[test]
    fn what_goes_on_growing_does() {
        assert_eq!(grows(|at| 50.0 + at), Some(true));
        assert_eq!(grows(|at| at / 10.0), Some(true), "from nothing");
        assert_eq!(grows(|at| if at < 70.0 { 50.0 } else { 60.0 }), Some(true), "a step that stays");
    }

    #[test]
    fn saw_teeth_spikes_and_a_step_at_the_beginning_do_not() {
        assert_eq!(grows(|at| 50.0 + at % 7.0 * 4.0), Some(false));
        assert_eq!(grows(|at| if at % 10.0 == 9.0 { 900.0 } else { 50.0 }), Some(false));
        assert_eq!(grows(|at| if at < 20.0 { 5.0 } else { 50.0 }), Some(false));
    }

    #[test]
    fn the_four_numbers_and_too_few_points() {
        let points: Vec<Point> = (0..=100).map(|n| (f64::from(n), f64::from(n))).collect();
        let expected = Trend { start: 0.0, warm: 48.0, end: 93.0, max: 100.0, grows: Some(true) };
        assert_eq!(trend(&points, 25.0, 100.0, Some(BOUND)), expected);
        assert_eq!(trend(&points, 25.0, 100.0, None).grows, None);
        assert_eq!(trend(&points[..80], 25.0, 100.0, Some(BOUND)).grows, None, "nothing in the end");
        assert_eq!(trend(&[], 25.0, 100.0, Some(BOUND)), Trend::default());
    }
}
