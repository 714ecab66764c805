//! Arguments named as generated code might name its own, and layers made by another macro.

use candle_core::{DType, Device, Tensor};
use layerfn::{ParameterStore, Result, parametric_function};

/// Every argument has a name that generated code could have used.
#[parametric_function(
    scope = "awkward",
    params(
        /// Named as the helper macro.
        param: [value, ..[v, out]] = initial,
        /// Named as an argument.
        shape: [this] = f64::from(store),
    )
)]
fn awkward(
    scope: &Tensor,
    self_: usize,
    result: usize,
    #[opt(default = self_ + result)] value: usize,
    #[opt(default = value)] this: usize,
    #[opt(default = 1)] v: usize,
    #[opt(default = 1)] out: usize,
    #[opt(default = 0.5)] initial: f64,
    #[opt] info: Option<&Tensor>,
    #[opt(default = 2)] store: u8,
    #[opt] shape: usize,
    #[opt] label: usize,
    #[opt] given: usize,
    #[opt] body: usize,
    #[opt] awkward: usize,
    #[opt] run: usize,
    #[opt] maybe: usize,
    #[opt] layerfn: usize,
    #[opt] core: usize,
) -> Result<usize> {
    let options = shape + label + given + body + awkward + run + maybe + layerfn + core;
    let infos = info.map_or(0, Tensor::rank);
    Ok(scope.rank() + param!(param)?.elem_count() + param!(shape)?.elem_count() + infos + options)
}

#[test]
fn generated_names_do_not_meet_the_users() -> Result<()> {
    let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
    ParameterStore::new().enter(|| {
        let call = awkward(&x, 1, 2).v(2).info(&x).layerfn(0).core(1).run(1);
        assert_eq!(call.call()?, 2 + 6 + 3 + 2 + 2);
        Ok(())
    })
}

macro_rules! layer {
    ($(#[$attribute:meta])* $name:ident, $scope:literal, $input:ty, $size:expr, $initial:expr) => {
        $(#[$attribute])*
        #[parametric_function(
            scope = $scope,
            params(
                /// Made by a macro.
                W: [$size, n] = $initial,
                /// Made by a macro.
                #[when(with_bias)]
                b: [n] = 0.0,
            )
        )]
        fn $name(inp: $input, #[opt(default = $size)] n: usize, #[opt] with_bias: bool) -> Result<usize> {
            let b = param!(b)?;
            Ok(inp.rank() + param!(W)?.elem_count() + b.map_or(0, |b| b.elem_count()))
        }
    };
}

layer!(
    /// The first.
    first, "one", &Tensor, 2, 1.0);
layer!(second, "two", &Tensor, 1 + 2, layerfn::Initializer::constant(1.0));

#[test]
fn layers_can_be_made_by_a_macro() -> Result<()> {
    let x = Tensor::ones(1, DType::F32, &Device::Cpu)?;
    ParameterStore::new().enter(|| {
        assert_eq!(first(&x).call()?, 1 + 4);
        assert_eq!(second(&x).n(2).with_bias(true).call()?, 1 + 6 + 2);
        assert_eq!(First::INFO.doc, "The first.");
        assert_eq!(Second::INFO.parameters[0].shape, "(1 + 2, n)");
        Ok(())
    })
}
