//! Interpolation of images and signals.

use std::str::FromStr;

use candle_core::Tensor;

use super::arrange::moved;
use super::composed;
use super::graph::attach;
use super::node::{compute, for_float, in_type, widened, without_kernels};
use super::places::taken;
use crate::kernels::blend::Blend;
use crate::kernels::places::{Along, Places};
use crate::told::{Form, told};
use crate::{Error, Result, check};

/// The interpolation methods of [`interpolate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterpolationMode {
    /// The two neighbours on each axis, weighted by their distance.
    #[default]
    Linear,
    /// A single neighbour.
    Nearest,
}

impl FromStr for InterpolationMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "linear" => Ok(Self::Linear),
            "nearest" => Ok(Self::Nearest),
            other => Err(Error::invalid("mode", "must be `linear` or `nearest`", other)),
        }
    }
}

/// Options of [`interpolate`]; the default is NNabla's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interpolation {
    /// Interpolation method.
    pub mode: InterpolationMode,
    /// Whether the first and the last elements of the input and the output are aligned.
    pub align_corners: bool,
    /// Whether elements are at the centers of their pixels.
    pub half_pixel: bool,
    /// [`half_pixel`](Self::half_pixel) for [`Nearest`](InterpolationMode::Nearest), rounded as in NNabla's GPU
    /// kernels.
    pub half_pixel_for_nn: bool,
    /// Whether the axis of the channels comes behind the spatial ones.
    pub channel_last: bool,
}

/// Resizes the last one to three axes, with one number of `scale` or of `output_size` for each of them.
///
/// Index `i` of an output axis of size `L'` corresponds to `x = s i` among the `L` inputs, where `s = L / L'`,
/// or `s = (L - 1) / (L' - 1)` with `align_corners`; with `half_pixel` to `x = max(0, s (i + 1/2) - 1/2)`.
/// Linear interpolation uses the elements on both sides of `x`; nearest uses the one at `x` rounded down, or,
/// with `half_pixel_for_nn`, at `L / L' (i + 1/2)` rounded down. The coordinates are computed in `f32`,
/// whatever the type of the tensor.
///
/// # Shapes
/// - `inp`: `(N.., L1, .., Ld)`; with `channel_last` the axis of the channels follows
/// - output: `Li' = scale Li`, rounded down, or `output_size`
///
/// # Errors
/// [`Error::InvalidArgument`] unless exactly one of `scale` and `output_size` is given, with one to three numbers, all of them
/// above 0; with both `align_corners` and `half_pixel`; or if there is nothing to interpolate between.
///
/// # Source
/// NNabla `F.interpolate`, which does not support `channel_last` on the CPU. The layer
/// [`interpolate`](crate::interpolate()) has defaults for all options.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{Interpolation, interpolate};
/// let x = Tensor::new(&[[0f32, 2.]], &Device::Cpu)?;
/// let y = interpolate(&x, None, Some(&[3]), Interpolation { align_corners: true, ..Default::default() })?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0., 1., 2.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn interpolate(
    inp: &Tensor,
    scale: Option<&[f64]>,
    output_size: Option<&[usize]>,
    how: Interpolation,
) -> Result<Tensor> {
    if how.align_corners && how.half_pixel {
        return Err(Error::invalid("half_pixel", "must be false with `align_corners`", true));
    }
    let n = scale.map_or(0, <[_]>::len).max(output_size.map_or(0, <[_]>::len));
    let behind = usize::from(how.channel_last);
    let first = inp.rank().checked_sub(n + behind).filter(|_| (1..=3).contains(&n)).ok_or_else(|| {
        let reason = "must have one to three axes for the one to three numbers of `scale` or `output_size`";
        Error::invalid("inp", reason, inp.dims())
    })?;
    if how.channel_last {
        let (last, how) = (inp.rank() - 1, Interpolation { channel_last: false, ..how });
        return moved(&interpolate(&moved(inp, last, first)?, scale, output_size, how)?, first, last);
    }
    let (leading, spatial) = inp.dims().split_at(first);
    let sizes = sizes(spatial, scale, output_size)?;
    let dims = [leading, &sizes].concat();
    told(
        || how.form(inp, &sizes),
        || {
            check::tensor("output_size", &dims, inp.dtype())?;
            for size in &sizes {
                check::memory::<[f64; 6]>("output_size", *size)?;
            }
            let axes = spatial.iter().zip(&sizes);
            match how.mode {
                InterpolationMode::Nearest => {
                    let nearest = axes.map(|(&n, &len)| Along::Table { n, places: how.nearest(n, len) });
                    let along = leading.iter().map(|n| Along::all(*n)).chain(nearest).collect();
                    taken("interpolate", inp, Places::in_order(along), 0.0, &dims)
                }
                InterpolationMode::Linear => {
                    let blends = axes.enumerate().map(|(i, (&n, &len))| (first + i, how.linear(n, len)));
                    blended(inp, blends.collect(), &dims)
                }
            }
        },
    )
}

/// The sizes of the output's spatial axes.
fn sizes(spatial: &[usize], scale: Option<&[f64]>, output_size: Option<&[usize]>) -> Result<Vec<usize>> {
    if let Some(axis) = spatial.iter().position(|size| *size == 0) {
        return Err(Error::invalid("inp", format!("must have elements on spatial axis {axis}"), spatial));
    }
    let sizes = match (scale, output_size) {
        (Some(scale), None) => {
            scale.iter().try_for_each(|scale| check::positive("scale", *scale))?;
            // A size that does not fit is rejected together with that of the result.
            spatial.iter().zip(scale).map(|(size, scale)| (*size as f64 * scale).floor() as usize).collect()
        }
        (None, Some(sizes)) => sizes.to_vec(),
        _ => return Err(Error::invalid("scale", "must be given, or `output_size` in its place", scale)),
    };
    if sizes.contains(&0) {
        let argument = if scale.is_some() { "scale" } else { "output_size" };
        return Err(Error::invalid(
            argument,
            format!("must keep at least one element on each of the spatial axes {spatial:?}"),
            sizes,
        ));
    }
    Ok(sizes)
}

impl Interpolation {
    fn form(self, inp: &Tensor, sizes: &[usize]) -> Form {
        let mode = match self.mode {
            InterpolationMode::Linear => "linear",
            InterpolationMode::Nearest => "nearest",
        };
        let form = Form::new("Interpolate", &[inp]).with("output_size", sizes).with("mode", mode);
        let form = form.with("align_corners", self.align_corners).with("half_pixel", self.half_pixel);
        form.with("half_pixel_for_nn", self.half_pixel_for_nn).with("channel_last", false)
    }

    /// The input coordinates of `len` outputs among `n` inputs.
    fn coordinates(self, n: usize, len: usize) -> impl Iterator<Item = f32> {
        let scale = match (self.align_corners, len) {
            (_, 1) => 0.0,
            (true, _) => (n - 1) as f32 / (len - 1) as f32,
            (false, _) => n as f32 / len as f32,
        };
        (0..len).map(move |i| match self.half_pixel {
            true => (scale * (i as f32 + 0.5) - 0.5).max(0.0),
            false => scale * i as f32,
        })
    }

    fn nearest(self, n: usize, len: usize) -> Vec<usize> {
        let below = |x: f32| (x as usize).min(n - 1);
        if self.half_pixel_for_nn {
            let scale = n as f32 / len as f32;
            return (0..len).map(|i| below(scale * (i as f32 + 0.5))).collect();
        }
        self.coordinates(n, len).map(below).collect()
    }

    fn linear(self, n: usize, len: usize) -> Blend {
        let terms = self.coordinates(n, len).enumerate().flat_map(|(to, x)| {
            let from = (x as usize).min(n - 1);
            let weight = f64::from(x - from as f32);
            [(to, from, 1.0 - weight), (to, (from + 1).min(n - 1), weight)]
        });
        Blend::new(n, len, terms.collect())
    }
}

/// Blends each of these axes; the result has the sizes `dims`.
fn blended(inp: &Tensor, blends: Vec<(usize, Blend)>, dims: &[usize]) -> Result<Tensor> {
    let compose = |t: &[Tensor]| Ok([composed::blend::blended(&t[0], &blends)?]);
    if let Some([y]) = without_kernels("interpolate", &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened("interpolate", [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(dims, [&x], |[x], y| Blend::apply_all(&blends, inp.dims(), x, y))?;
        let (input_dims, dims) = (inp.dims().to_vec(), dims.to_vec());
        attach("interpolate", [&x], y, move |dy| {
            let back: Vec<_> = blends.iter().rev().map(|(axis, blend)| (*axis, blend.transposed())).collect();
            let dx = compute::<T, 1>(&*input_dims, [dy], |[dy], dx| Blend::apply_all(&back, &dims, dy, dx))?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    in_type(y, inp.dtype())
}
