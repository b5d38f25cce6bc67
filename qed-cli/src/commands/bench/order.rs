//! The order in which requests are sent: as they are numbered, or each once in a random order.

/// An order of so many numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Ascending,
    /// The same each time, whatever the machine.
    Random {
        count: u64,
    },
}

impl Order {
    /// The number that stands at a place; each number stands at one.
    pub(super) fn place(self, place: u64) -> u64 {
        let Self::Random { count } = self else { return place };
        let bits = count.next_power_of_two().trailing_zeros().div_ceil(2);
        let mut number = place;
        // Shuffles the numbers below a power of four. What lands past the end is shuffled again, so
        // that those below `count` are shuffled among themselves.
        loop {
            number = shuffled(number, bits);
            if number < count {
                return number;
            }
        }
    }
}

/// Four rounds of a Feistel network, which has an inverse whatever its function is.
fn shuffled(number: u64, half_bits: u32) -> u64 {
    let mask = (1 << half_bits) - 1;
    let (mut left, mut right) = (number >> half_bits, number & mask);
    for round in 1..=4_u64 {
        let mixed = (right + round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (left, right) = (right, left ^ (mixed >> 32 & mask));
    }
    left << half_bits | right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_turn_and_few_keep_their_place() {
        for count in [1, 2, 3, 5, 64, 100, 1000, 65_536, 75_000] {
            let order = Order::Random { count };
            let mut seen = vec![false; usize::try_from(count).unwrap()];
            let mut kept = 0;
            for place in 0..count {
                let number = order.place(place);
                kept += u64::from(number == place);
                let seen = &mut seen[usize::try_from(number).unwrap()];
                assert!(!*seen, "{number} of {count} twice");
                *seen = true;
            }
            assert!(count < 64 || kept < count / 8, "{kept} of {count} in their places");
        }
        assert_eq!(Order::Ascending.place(9), 9);
    }
}
