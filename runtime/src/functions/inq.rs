//! Incremental network quantization: which weights become powers of two, and when.

use std::str::FromStr;

use candle_core::{DType, Tensor};

use crate::{Error, Result, Rng, check};

/// Which of the free weights are fixed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionAlgorithm {
    /// The half with the largest modulus.
    LargestAbs,
    /// Each with probability one half.
    Random,
}

impl FromStr for SelectionAlgorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "largest_abs" => Ok(Self::LargestAbs),
            "random" => Ok(Self::Random),
            other => Err(Error::invalid("selection_algorithm", "must be `largest_abs` or `random`", other)),
        }
    }
}

/// The schedule of an incremental quantization.
#[derive(Clone, Debug)]
pub struct Inq {
    /// Bits for each weight.
    pub num_bits: usize,
    /// Passes, counted from 0, at which half of the free weights are fixed; all of them at the last.
    pub inq_iterations: Vec<usize>,
    /// Which weights are fixed first.
    pub selection_algorithm: SelectionAlgorithm,
    /// Seed of the random selection; negative for the generator that is passed in.
    pub seed: i64,
}

/// The result of one pass; all tensors are detached.
#[derive(Clone, Debug)]
pub struct InqStep {
    /// Weights, the fixed ones rounded.
    pub w: Tensor,
    /// Indicators: 1 for a fixed weight, 0 for a free one.
    pub i: Tensor,
    /// The count for the next pass.
    pub count: Tensor,
}

impl Inq {
    /// Number of elements of the count: passes and draws so far, as bytes in little-endian order. A byte is
    /// exact in every floating-point type, so the count survives any file and any precision.
    pub const STATE: usize = 16;

    /// Validates the settings of the schedule and returns it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `num_bits` is not between 2 and 32, or the seed has more than 32 bits.
    pub fn checked(self) -> Result<Self> {
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<()> {
        if !(2..=32).contains(&self.num_bits) {
            return Err(Error::invalid("num_bits", "must be between 2 and 32", self.num_bits));
        }
        if self.seed > i64::from(u32::MAX) {
            return Err(Error::invalid("seed", "must have at most 32 bits", self.seed));
        }
        Ok(())
    }

    /// Runs one pass: undoes changes to fixed weights since the previous pass, which left `last`, fixes further
    /// ones if the schedule says so, and rounds all fixed ones.
    ///
    /// # Errors
    /// If a setting is invalid, the tensors do not hold floating-point numbers or have different shapes, or
    /// `count` does not come from a pass.
    pub fn step(&self, w: &Tensor, i: &Tensor, last: &Tensor, count: &Tensor, rng: &Rng) -> Result<InqStep> {
        self.check()?;
        for (argument, tensor) in [("i", i), ("last", last)] {
            if tensor.dims() != w.dims() {
                let reason = format!("must have the shape {:?} of the weights", w.dims());
                return Err(Error::invalid(argument, reason, tensor.dims()));
            }
        }
        let (mut weights, mut indicators) = (values("w", w)?, values("i", i)?);
        let last = values("last", last)?;
        let [passes, mut draws] = self.decode(count, weights.len())?;
        if passes > 0 {
            for ((weight, &before), _) in
                weights.iter_mut().zip(&last).zip(&indicators).filter(|(_, fixed)| **fixed != 0.0)
            {
                *weight = before;
            }
        }
        let pass = usize::try_from(passes).unwrap_or(usize::MAX);
        if self.inq_iterations.last() == Some(&pass) {
            indicators.fill(1.0);
        } else if self.inq_iterations.contains(&pass) {
            match self.selection_algorithm {
                SelectionAlgorithm::LargestAbs => fix_largest(&weights, &mut indicators),
                SelectionAlgorithm::Random => draws += self.fix_random(&mut indicators, draws, rng),
            }
        }
        self.round(&mut weights, &indicators);
        let like = |values: Vec<f64>, tensor: &Tensor| -> Result<Tensor> {
            Ok(Tensor::from_vec(values, tensor.dims(), tensor.device())?.to_dtype(tensor.dtype())?)
        };
        Ok(InqStep {
            w: like(weights, w)?,
            i: like(indicators, i)?,
            count: like(encode([passes + 1, draws]), count)?,
        })
    }

    /// Tosses a coin for each free weight, in order, as `std::bernoulli_distribution` does with `std::mt19937`.
    fn fix_random(&self, indicators: &mut [f64], draws: u64, rng: &Rng) -> u64 {
        let seeded = u32::try_from(self.seed).ok().map(Rng::new);
        let rng = seeded.as_ref().unwrap_or(rng);
        if seeded.is_some() {
            rng.skip(draws);
        }
        let mut drawn = 0;
        for indicator in indicators.iter_mut().filter(|indicator| **indicator == 0.0) {
            let (low, high) = (f64::from(rng.next_u32()), f64::from(rng.next_u32()));
            drawn += 2;
            if (low + high * 2f64.powi(32)) / 2f64.powi(64) < 0.5 {
                *indicator = 1.0;
            }
        }
        if seeded.is_some() { drawn } else { 0 }
    }

    fn round(&self, weights: &mut [f64], indicators: &[f64]) {
        let largest = weights.iter().fold(0.0, |largest: f64, weight| largest.max(weight.abs()));
        let n1 = exponent(if largest == 0.0 { 1.0 } else { largest }, 1.5f64.log2());
        let n2 = n1 + 1.0 - 2f64.powi(self.num_bits as i32 - 2);
        let step = f64::from(1.5f64.log2() as f32);
        for (weight, _) in weights.iter_mut().zip(indicators).filter(|(_, fixed)| **fixed != 0.0) {
            *weight = match weight.abs() {
                size if size < (n2 - 1.0).exp2() => 0.0,
                size => exponent(size, step).clamp(n2, n1).exp2().copysign(*weight),
            };
        }
    }
}

/// The exponent of the nearest power of two, rounding up from 1.5 times one (whose logarithm is `step`).
///
/// The logarithm is taken in single precision and `step` is rounded to it for weights but not for the largest one,
/// as in NNabla: that decides where a weight is 1.5 times a power of two.
fn exponent(x: f64, step: f64) -> f64 {
    let log = (x as f32).log2();
    f64::from(log.floor()) + f64::from(u8::from(f64::from(log - log.floor()) >= step))
}

/// Fixes half of the free weights, rounded down, largest first.
///
/// NNabla looks at one weight before it counts: if one free weight is left, it is fixed if it is the largest of all.
fn fix_largest(weights: &[f64], indicators: &mut [f64]) {
    let half = indicators.iter().filter(|&&indicator| indicator == 0.0).count() / 2;
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()));
    let mut fixed = 0;
    for index in order {
        if indicators[index] == 0.0 {
            indicators[index] = 1.0;
            fixed += 1;
        }
        if fixed >= half {
            break;
        }
    }
}

fn values(argument: &'static str, tensor: &Tensor) -> Result<Vec<f64>> {
    check::float(argument, tensor)?;
    check::tensor(argument, tensor.dims(), DType::F64)?;
    Ok(tensor.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

fn encode(counts: [u64; 2]) -> Vec<f64> {
    counts.iter().flat_map(|count| count.to_le_bytes()).map(f64::from).collect()
}

impl Inq {
    /// The numbers of passes and draws. They come from files, so they are checked against the maximum of the
    /// schedule.
    fn decode(&self, count: &Tensor, n_weights: usize) -> Result<[u64; 2]> {
        let values = values("count", count)?;
        let bytes = values.iter().map(|&byte| (byte == f64::from(byte as u8)).then_some(byte as u8));
        let bytes = bytes.collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() == Self::STATE);
        let Some((Some(passes), Some(draws))) = bytes.as_ref().map(|b| (b.first_chunk(), b.last_chunk()))
        else {
            let reason = format!("must hold {} bytes", Self::STATE);
            return Err(Error::invalid("count", reason, values));
        };
        let [passes, draws] = [u64::from_le_bytes(*passes), u64::from_le_bytes(*draws)];
        let selections = passes.min(self.inq_iterations.len() as u64);
        let most = selections.saturating_mul(2).saturating_mul(n_weights as u64);
        if passes == u64::MAX || draws > most {
            let reason = format!("must hold what passes have left, at most {most} draws");
            return Err(Error::invalid("count", reason, [passes, draws]));
        }
        Ok([passes, draws])
    }
}
