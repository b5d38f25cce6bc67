//! Sizes for people: three significant digits and a binary unit.

/// `67108864` as `64 MiB`, `1536` as `1.5 KiB`.
pub(crate) fn human_size(bytes: u64) -> String {
    const PREFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    // The unit changes at 1000, not at 1024, of the smaller one: 1000 KiB reads 0.977 MiB.
    let power = (0..7_u32)
        .rev()
        .find(|power| bytes >= 1000 << (10 * power.saturating_sub(1)) || *power == 0);
    let power = power.unwrap_or(0);
    let prefix = PREFIXES[usize::try_from(power).unwrap_or(0)];
    format!("{} {prefix}B", three_digits(bytes, 1 << (10 * power)))
}

/// `bytes / unit` as C's `%0.3g` prints it; the quotient is below 1000.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn three_digits(bytes: u64, unit: u64) -> String {
    let value = bytes as f64 / unit as f64;
    let decimals = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.as_str() {
        "1000" => "1e+03".to_owned(),
        text if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_show_three_digits_and_a_unit() {
        let cases = [
            (0, "0 B"),
            (512, "512 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (197_120, "192 KiB"),
            (266_240, "260 KiB"),
            (1_023_999, "1e+03 KiB"),
            (1_024_000, "0.977 MiB"),
            (67_108_864, "64 MiB"),
            (67_698_688, "64.6 MiB"),
            (70_254_592, "67 MiB"),
            (10_737_418_240, "10 GiB"),
            (70_368_744_177_664, "64 TiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
    }
}
