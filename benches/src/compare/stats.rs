//! Medians, spreads and ratios.

use serde::Serialize;

/// Where values lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// A quarter of the values is below.
    pub(crate) q1: f64,
    /// A quarter of the values is above.
    pub(crate) q3: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let at = |fraction| quantile(&values, fraction);
        Some(Self { median: at(0.5), q1: at(0.25), q3: at(0.75), min, max })
    }
}

/// Between the two values beside it, in proportion.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a short list"
)]
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// How much `ours` is of `theirs`, round by round: values that were taken seconds apart.
pub(crate) fn ratios(ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Option<Spread> {
    let pairs = ours.iter().filter_map(|(round, value)| {
        let other = theirs.iter().find(|(other, _)| other == round)?.1;
        (other > 0.0).then(|| value / other)
    });
    Spread::of(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.q1, spread.q3), (2.5, 1.75, 3.25));
        assert_eq!((spread.min, spread.max), (1.0, 4.0));
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_ratio_compares_samples_of_one_round() {
        // The machine is twice as fast in the second round.
        let (ours, theirs) = ([(0, 10.0), (1, 20.0), (2, 10.0)], [(1, 10.0), (0, 5.0)]);
        let spread = ratios(&ours, &theirs).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 2.0, 2.0));
        assert_eq!(ratios(&ours, &[(0, 0.0)]), None);
    }
}
