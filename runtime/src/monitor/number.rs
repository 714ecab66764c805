//! Numbers as C's `%g` writes them.

/// Six significant digits, without zeros at the end; as a power of ten if that is shorter.
pub(super) fn general(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "nan".to_owned() } else { format!("{value}") };
    }
    let scientific = format!("{value:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return without_zeros(&format!("{value:.*}", (5 - exponent).max(0) as usize)).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_zeros(digits), exponent.abs())
}

fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::general;

    #[test]
    fn numbers_are_written_as_by_c() {
        let pairs = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (2.0 / 3.0, "0.666667"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.5, "1e+06"),
            (0.0001, "0.0001"),
            (0.000_012_345_67, "1.23457e-05"),
            (-2.5e-300, "-2.5e-300"),
            (1e100, "1e+100"),
            (100_000.0, "100000"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
            (2.345_678_9, "2.34568"),
            (99.999_99, "100"),
        ];
        for (value, text) in pairs {
            assert_eq!(general(value), text);
        }
    }
}
