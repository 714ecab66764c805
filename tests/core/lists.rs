//! Parameters whose number depends on an argument.

use candle_core::{DType, Device, Tensor};
use layerfn::{LayerInfo, ParameterStore, Result, get_all_parameters, get_parameter, parametric_function};

/// Layers one after the other.
#[parametric_function(
    scope = "mlp",
    params(
        /// Weights, the first of which see the input.
        weight_l[i in 0..sizes.len()]: [if i == 0 { inmaps } else { sizes[i - 1] }, sizes[i]] = (i + 1) as f64,
        /// Biases behind the first.
        #[when(with_bias)]
        b[n in 1..sizes.len()]: [sizes[n]] = 0.5,
        /// How often each was used.
        #[need_grad(false)]
        uses[_k in 0..sizes.len()]: [1] = 0.0,
    )
)]
fn mlp(
    inp: &Tensor,
    sizes: &[usize],
    #[opt(default = true)] with_bias: bool,
    #[opt] beyond: usize,
) -> Result<Tensor> {
    let inmaps = inp.dim(1)?;
    let mut h = inp.clone();
    for i in 0..sizes.len() + beyond {
        h = h.matmul(&param!(weight_l[i])?)?;
        if i > 0
            && let Some(b) = param!(b[i])?
        {
            h = h.broadcast_add(&b)?;
        }
        let next = (param!(uses[i])? + 1.0)?;
        param!(uses[i] = &next)?;
    }
    Ok(h)
}

fn ones(n: usize) -> Result<Tensor> {
    Ok(Tensor::ones((1, n), DType::F32, &Device::Cpu)?)
}

#[test]
fn a_list_of_parameters_is_as_long_as_an_argument_says() -> Result<()> {
    ParameterStore::new().enter(|| {
        let y = mlp(&ones(3)?, &[2, 2]).call()?;
        // Three times 1, then two times 6 and a half.
        assert_eq!(y.to_vec2::<f32>()?, [[2.0 * (3.0 * 2.0) + 0.5; 2]]);
        mlp(&ones(3)?, &[2, 2]).call()?;
        let paths: Vec<_> = get_all_parameters().paths().map(str::to_owned).collect();
        let names = ["weight_l0", "uses0", "weight_l1", "b1", "uses1"];
        assert_eq!(paths, names.map(|name| format!("mlp/{name}")));
        assert_eq!(get_parameter("mlp/weight_l0").unwrap().var().dims(), [3, 2]);
        assert_eq!(get_parameter("mlp/uses1").unwrap().var().to_vec1::<f32>()?, [2.0]);
        Ok(())
    })
}

#[test]
fn a_number_that_the_list_does_not_have_is_an_error() -> Result<()> {
    ParameterStore::new().enter(|| {
        let error = mlp(&ones(3)?, &[2, 3]).name("x").beyond(1).call().unwrap_err().to_string();
        let expected = "`index` must be one of the numbers 0..2 of the parameters `x/mlp/weight_l`, got 2";
        assert!(error.contains(expected), "{error}");
        Ok(())
    })
}

#[test]
fn the_declaration_says_so() {
    let info: &LayerInfo = Mlp::INFO;
    let indices: Vec<_> = info.parameters.iter().map(|parameter| (parameter.name, parameter.index)).collect();
    assert_eq!(
        indices,
        [
            ("weight_l", Some("i in 0..sizes.len()")),
            ("b", Some("n in 1..sizes.len()")),
            ("uses", Some("_k in 0..sizes.len()")),
        ]
    );
}
