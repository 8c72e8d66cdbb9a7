//! The geometry of charts. Across they are counted in percent of their width, so that they fit any screen; upwards in
//! units of their own height.

use serde::Serialize;

/// How high a chart of bars is.
pub(super) const HEIGHT: f64 = 96.0;

/// One column of a chart.
#[derive(Serialize)]
pub(super) struct Bar {
    /// Where it begins, in percent.
    pub x: f64,
    /// How wide it is, in percent.
    pub width: f64,
    /// Where its top is, from above.
    pub y: f64,
    /// How high it is.
    pub height: f64,
}

/// Columns side by side, as high as their values say; what has none leaves its place empty. And the value at the top.
pub(super) fn bars(values: &[Option<f64>]) -> (Vec<Option<Bar>>, f64) {
    let most = ceiling(values.iter().flatten().copied().fold(0.0, f64::max));
    #[allow(clippy::cast_precision_loss, reason = "as many as a screen shows")]
    let step = 100.0 / values.len().max(1) as f64;
    // Few bars are no wider than this, many have no room for gaps.
    let gap = if step > 1.0 { (step * 0.25).max(step - 9.0) } else { 0.0 };
    let mut x = 0.0;
    let bar = |value: &Option<f64>| {
        let left = x;
        x += step;
        let height = rounded((*value)? / most * HEIGHT).max(1.0);
        Some(Bar { x: rounded(left + gap / 2.0), width: rounded(step - gap), y: HEIGHT - height, height })
    };
    (values.iter().map(bar).collect(), most)
}

/// Where a moment is on a line of `length`, in percent.
pub(super) fn place(at: f64, length: f64) -> f64 {
    if length > 0.0 { rounded((at / length * 100.0).clamp(0.0, 100.0)) } else { 0.0 }
}

/// The next number that is easy to read.
pub(super) fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let ten = 10_f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * ten)
        .find(|step| *step >= value)
        .unwrap_or(value)
}

/// Two decimals are finer than any screen.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_side_by_side_below_a_number_that_is_easy_to_read() {
        let (bars, most) = bars(&[Some(300.0), None, Some(0.0), Some(450.0)]);
        assert!((most - 500.0).abs() < 0.01);
        let seen: Vec<_> = bars.iter().map(|bar| bar.as_ref().map(|bar| (bar.x, bar.width, bar.height))).collect();
        // At most nine percent wide.
        assert_eq!(seen, [Some((8.0, 9.0, 57.6)), None, Some((58.0, 9.0, 1.0)), Some((83.0, 9.0, 86.4))]);
        assert_eq!(super::bars(&[]).0.len(), 0);
    }

    #[test]
    fn a_place_is_never_outside() {
        let places = [(5.0, 20.0), (-1.0, 20.0), (30.0, 20.0), (5.0, 0.0)].map(|(at, length)| place(at, length));
        assert_eq!(places.map(|place| place.to_string()), ["25", "0", "100", "0"]);
        let easy = [0.0, 0.7, 1.0, 14.0, 501.0].map(|value| format!("{:.1}", ceiling(value)));
        assert_eq!(easy, ["1.0", "0.8", "1.0", "15.0", "600.0"]);
    }
}
