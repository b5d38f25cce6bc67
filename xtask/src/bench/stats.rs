//! The arithmetic of a comparison: rounds of times to a median ratio, its spread and a verdict.

use std::time::Duration;

use anyhow::{Result, bail};

use super::case::Goal;

/// What is not counted of a time that may be so much longer.
const SLACK: Duration = Duration::from_millis(5);

/// What a comparison needs at the least.
const ROUNDS_MIN: usize = 11;

/// One round: ours, the reference, and the reference once more, as near in time as can be.
#[derive(Clone, Copy)]
pub(super) struct Round {
    pub(super) ours: Duration,
    pub(super) reference: Duration,
    pub(super) again: Duration,
}

/// The rounds of a case in a few numbers. Ratios are of times, or of speeds for a goal of speed.
pub(super) struct Summary {
    /// Medians over the rounds.
    pub(super) ours: Duration,
    pub(super) reference: Duration,
    pub(super) ratio: Quartiles,
    /// The reference against itself: how far chance alone goes.
    pub(super) itself: Quartiles,
    pub(super) rounds: usize,
    pub(super) verdict: Verdict,
}

/// The middle half of some ratios.
#[derive(Clone, Copy)]
pub(super) struct Quartiles {
    pub(super) lower: f64,
    pub(super) median: f64,
    pub(super) upper: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// There is no goal.
    Reported,
    Missed,
    /// The spread is wider than the margin.
    Inconclusive,
}

impl Summary {
    /// Sums up the rounds of a case.
    ///
    /// # Errors
    /// There are too few rounds.
    pub(super) fn of(rounds: &[Round], goal: Goal) -> Result<Self> {
        if rounds.len() < ROUNDS_MIN {
            bail!("{} rounds were measured, {ROUNDS_MIN} are needed", rounds.len());
        }
        let ratios = |side: fn(&Round) -> Duration| -> Quartiles {
            Quartiles::of(rounds.iter().map(|it| goal.ratio(side(it), it.reference)).collect())
        };
        let ratio = ratios(|round| round.ours);
        let itself = ratios(|round| round.again);
        Ok(Self {
            ours: median_time(rounds, |round| round.ours),
            reference: median_time(rounds, |round| round.reference),
            ratio,
            itself,
            rounds: rounds.len(),
            verdict: goal.verdict(ratio, itself),
        })
    }
}

impl Goal {
    /// The ratio that the goal speaks of.
    fn ratio(self, ours: Duration, reference: Duration) -> f64 {
        match self {
            Self::TimeAtMost(_) | Self::None => ours.as_secs_f64() / reference.as_secs_f64(),
            Self::TimeAtMostPlus5Ms(_) => {
                ours.saturating_sub(SLACK).as_secs_f64() / reference.as_secs_f64()
            }
            Self::SpeedAtLeast(_) => reference.as_secs_f64() / ours.as_secs_f64(),
        }
    }

    /// The margin is how far the limit lies from a tie, or from the median where that is further:
    /// chance that reaches less far changes no verdict.
    fn verdict(self, ratio: Quartiles, itself: Quartiles) -> Verdict {
        let (limit, reached) = match self {
            Self::None => return Verdict::Reported,
            Self::TimeAtMost(limit) | Self::TimeAtMostPlus5Ms(limit) => {
                (limit, ratio.median <= limit)
            }
            Self::SpeedAtLeast(limit) => (limit, ratio.median >= limit),
        };
        let margin = (1.0 - limit).abs().max((ratio.median - limit).abs());
        if !reached {
            Verdict::Missed
        } else if ratio.spread().max(itself.spread()) > margin {
            Verdict::Inconclusive
        } else {
            Verdict::Passed
        }
    }
}

impl Quartiles {
    fn of(mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        let at = |quarters: usize| ratios[(ratios.len() - 1) * quarters / 4];
        Self { lower: at(1), median: at(2), upper: at(3) }
    }

    /// The width of the middle half.
    pub(super) fn spread(self) -> f64 {
        self.upper - self.lower
    }
}

fn median_time(rounds: &[Round], side: fn(&Round) -> Duration) -> Duration {
    let mut times: Vec<Duration> = rounds.iter().map(side).collect();
    times.sort();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(ours: impl Fn(u64) -> u64) -> Vec<Round> {
        let ms = Duration::from_millis;
        let round = |i| Round { ours: ms(ours(i)), reference: ms(100), again: ms(99 + i % 3) };
        (0..11).map(round).collect()
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs() {
        let summary = Summary::of(&rounds(|i| 40 + i), Goal::TimeAtMost(0.5)).unwrap();
        assert!((summary.ratio.median - 0.45).abs() < 1e-9);
        assert!((summary.ratio.spread() - 0.05).abs() < 1e-9);
        assert_eq!(summary.verdict, Verdict::Passed);
    }

    #[test]
    fn a_goal_of_speed_turns_the_ratio_round() {
        let summary = Summary::of(&rounds(|_| 125), Goal::SpeedAtLeast(0.9)).unwrap();
        assert!((summary.ratio.median - 0.8).abs() < 1e-9);
        assert_eq!(summary.verdict, Verdict::Missed);
    }

    #[test]
    fn five_milliseconds_more_may_be_allowed() {
        let summary = Summary::of(&rounds(|_| 123), Goal::TimeAtMostPlus5Ms(1.2)).unwrap();
        assert!((summary.ratio.median - 1.18).abs() < 1e-9);
        assert_eq!(summary.verdict, Verdict::Passed);
        let summary = Summary::of(&rounds(|_| 126), Goal::TimeAtMostPlus5Ms(1.2)).unwrap();
        assert_eq!(summary.verdict, Verdict::Missed);
        assert_eq!(Summary::of(&rounds(|_| 900), Goal::None).unwrap().verdict, Verdict::Reported);
    }

    #[test]
    fn a_spread_above_the_margin_is_inconclusive() {
        let summary = Summary::of(&rounds(|i| 10 + 9 * i), Goal::TimeAtMost(0.9)).unwrap();
        assert_eq!(summary.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn ten_rounds_are_too_few() {
        assert!(Summary::of(&rounds(|_| 1)[..10], Goal::TimeAtMost(0.5)).is_err());
    }
}
