//! Functions of one `f32` without branches or calls, so that loops over them become vector instructions.
//!
//! The polynomials are those of the Cephes library (`expf`, `tanhf`, `erff`).

/// `a * b + c`, rounded once if `FUSED`: only where that is an instruction and not a call.
#[inline(always)]
fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `y` and `n` with `e^x = y * 2^n`, for `|x|` up to 104.
#[inline(always)]
fn exp_parts<const FUSED: bool>(x: f32) -> (f32, i32) {
    /// Added and subtracted again, it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = mul_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, of which the first has so few bits that its product with n is exact.
    let r = mul_add::<FUSED>(n, 2.121_944_4e-4, mul_add::<FUSED>(n, -0.693_359_4, x));
    let p = 1.987_569_1e-4;
    let p = mul_add::<FUSED>(p, r, 1.398_199_9e-3);
    let p = mul_add::<FUSED>(p, r, 8.333_452e-3);
    let p = mul_add::<FUSED>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FUSED>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FUSED>(p, r, 0.5);
    let y = mul_add::<FUSED>(p, r * r, r) + 1.0;
    (y, (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// `2^n` for `n` from -126 to 127.
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// `e^x` within two units in the last place; denormal results included.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let (y, n) = exp_parts::<false>(x.clamp(-104.0, 89.0));
    // 2^n as two factors: one alone would not reach the largest and the denormal results.
    let half = n >> 1;
    y * power(half) * power(n.wrapping_sub(half))
}

/// `e^x` for `|x|` up to 87.
#[inline(always)]
fn exp_inside<const FUSED: bool>(x: f32) -> f32 {
    let (y, n) = exp_parts::<FUSED>(x);
    y * power(n)
}

/// `e^x` for `x` up to 88, and 0 from where it is no longer a normal number: a weight of softmax.
#[inline(always)]
pub(super) fn exp_or_zero<const FUSED: bool>(x: f32) -> f32 {
    let y = exp_inside::<FUSED>(x.clamp(-87.0, 88.0));
    if x < -87.0 { 0.0 } else { y }
}

/// `1 / (1 + e^-x)` within three units in the last place; at least 2^-126.
#[inline(always)]
pub(super) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp_inside::<FUSED>((-x).clamp(-87.0, 87.0)))
}

/// `tanh x` within three units in the last place.
#[inline(always)]
pub(super) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3;
    let p = mul_add::<FUSED>(p, z, 2.063_908_8e-2);
    let p = mul_add::<FUSED>(p, z, -5.373_971_6e-2);
    let p = mul_add::<FUSED>(p, z, 1.333_144_2e-1);
    let p = mul_add::<FUSED>(p, z, -3.333_328e-1);
    let near = mul_add::<FUSED>(p * z, x, x);
    // From 10 on it is 1.
    let far = (1.0 - 2.0 / (exp_inside::<FUSED>((2.0 * x.abs()).clamp(0.0, 20.0)) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// The sum of `coefficients[i] * x^i`.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum * x + coefficients[i];
    }
    sum
}

/// The error function within three units in the last place.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let size = x.abs();
    let near = x * polynomial(
        x * x,
        [
            std::f32::consts::FRAC_2_SQRT_PI,
            -3.761_262_6e-1,
            1.128_358_5e-1,
            -2.685_381_3e-2,
            5.188_327_6e-3,
            -8.010_193e-4,
            7.853_861e-5,
        ],
    );
    // From 4 on it is 1.
    let inverse = 1.0 / size.clamp(1.0, 4.0);
    let square = inverse * inverse;
    let middle = polynomial(
        square,
        [
            5.638_259_4e-1,
            -2.741_127e-1,
            3.404_88e-1,
            -4.944_515_3e-1,
            6.210_004_6e-1,
            -5.824_733e-1,
            3.687_424_6e-1,
            -1.387_039_4e-1,
            2.326_82e-2,
        ],
    );
    let far = polynomial(
        square,
        [
            5.641_895e-1,
            -2.820_767_5e-1,
            4.218_463_4e-1,
            -1.015_265_3,
            2.921_019,
            -7.495_519,
            1.297_719_9e1,
            -1.047_766_4e1,
        ],
    );
    let factor = if size < 2.0 { middle } else { far };
    let rest = exp_inside::<false>(-(size * size).clamp(1.0, 16.0)) * inverse * factor;
    let outside = (1.0 - rest).copysign(x);
    if size < 1.0 || x.is_nan() { near } else { outside }
}

#[cfg(test)]
mod tests {
    /// Difference from the exact value in units in the last place.
    fn ulps(got: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if got == rounded || (got.is_nan() && exact.is_nan()) {
            return 0.0;
        }
        let unit = f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(got) - exact).abs() / unit
    }

    /// Every 977th of all bit patterns, and what is special.
    fn arguments() -> impl Iterator<Item = f32> {
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 88.722_84, 88.73, -103.97, -103.98];
        (0..=u32::MAX).step_by(977).map(f32::from_bits).chain(special)
    }

    #[test]
    fn exp_is_nearly_exact_everywhere() {
        let worst = arguments().map(|x| ulps(super::exp(x), f64::from(x).exp())).fold(0.0, f64::max);
        assert!(worst < 2.0, "{worst}");
        assert!(super::exp(f32::NAN).is_nan());
        assert_eq!(super::exp(0.0), 1.0);
    }

    #[test]
    fn weights_are_nearly_exact_and_vanish_at_last() {
        for exp in [super::exp_or_zero::<false>, super::exp_or_zero::<true>] {
            let inside = arguments().filter(|x| (-87.0..=88.0).contains(x));
            let worst = inside.map(|x| ulps(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
            assert!(worst < 2.0, "{worst}");
            assert!(exp(f32::NAN).is_nan());
            assert_eq!([exp(f32::NEG_INFINITY), exp(-88.0), exp(0.0)], [0.0, 0.0, 1.0]);
        }
    }

    #[test]
    fn tanh_is_nearly_exact_everywhere() {
        for tanh in [super::tanh::<false>, super::tanh::<true>] {
            let worst = arguments().map(|x| ulps(tanh(x), f64::from(x).tanh())).fold(0.0, f64::max);
            assert!(worst < 3.0, "{worst}");
            assert!(tanh(f32::NAN).is_nan());
            assert_eq!(tanh(f32::INFINITY), 1.0);
            assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        }
    }

    #[test]
    fn erf_is_nearly_exact_everywhere() {
        let worst = arguments().map(|x| ulps(super::erf(x), libm::erf(f64::from(x)))).fold(0.0, f64::max);
        assert!(worst < 3.0, "{worst}");
        assert!(super::erf(f32::NAN).is_nan());
        assert_eq!(super::erf(f32::INFINITY), 1.0);
        assert_eq!(super::erf(f32::NEG_INFINITY), -1.0);
    }

    #[test]
    fn sigmoid_is_nearly_exact_where_it_is_not_tiny() {
        for sigmoid in [super::sigmoid::<false>, super::sigmoid::<true>] {
            let exact = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
            let inside = arguments().filter(|x| *x >= -86.0);
            let worst = inside.map(|x| ulps(sigmoid(x), exact(x))).fold(0.0, f64::max);
            assert!(worst < 3.0, "{worst}");
            assert!(sigmoid(f32::NAN).is_nan());
            assert_eq!(sigmoid(f32::INFINITY), 1.0);
            assert!(sigmoid(f32::NEG_INFINITY) < 2e-38);
        }
    }
}
