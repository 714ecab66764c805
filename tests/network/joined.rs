//! `relu` that is run in one with the stage before it.

use candle_core::{DType, Tensor, Var};
use layerfn::__private::{Before, add_before, composed, join, run_before, unlabelled};
use layerfn::functions::relu;
use layerfn::{
    Error, Network, ParameterStore, Result, affine, backward, batch_normalization, bn, convolution,
    deconvolution, depthwise_convolution, depthwise_deconvolution, network, parametric_function, test_mode,
};

use super::layers::{dense, times};
use super::{error_of, noise, values};

/// Bits of the output, and of the gradients of the input and the parameters.
fn bits(x: &Tensor, net: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Vec<u64>>> {
    let x = Var::from_tensor(x)?;
    let store = ParameterStore::new();
    let y = store.enter(|| net(&x))?;
    let weights = (noise(y.dims())? + 0.3)?.to_dtype(y.dtype())?;
    let gradients = backward(&(&y * weights)?.sum_all()?)?;
    let parameters = store.parameters();
    let variables = parameters.iter().filter(|(_, p)| p.need_grad()).map(|(_, p)| p.var()).chain([&x]);
    let tensors = variables.map(|variable| gradients.get(variable).unwrap()).chain([&y]);
    let bits = |tensor: &Tensor| -> Result<Vec<u64>> {
        let elements = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        Ok(elements.into_iter().map(f64::to_bits).collect())
    };
    tensors.map(bits).collect()
}

/// `relu` under a name that is not joined with the stage before it.
fn apart(x: &Tensor) -> Result<Tensor> {
    relu(x)
}

#[test]
fn values_and_gradients_are_those_of_both_alone() -> Result<()> {
    let batch = noise(&[6, 4])?;
    let images = noise(&[3, 2, 5, 7])?;
    let pairs: [(&Tensor, Network, Network); 12] = [
        (&batch, network!(affine(5) -> relu).boxed(), network!(affine(5) -> apart).boxed()),
        (
            &images,
            network!(affine((2, 3), base_axis = 2, with_bias = false) -> relu).boxed(),
            network!(affine((2, 3), base_axis = 2, with_bias = false) -> apart).boxed(),
        ),
        (
            &images,
            network!(convolution(3, (3, 3), pad = 1) -> relu).boxed(),
            network!(convolution(3, (3, 3), pad = 1) -> apart).boxed(),
        ),
        (
            &images,
            network!(depthwise_convolution((2, 2), multiplier = 2, with_bias = false) -> relu).boxed(),
            network!(depthwise_convolution((2, 2), multiplier = 2, with_bias = false) -> apart).boxed(),
        ),
        (
            &images,
            network!(deconvolution(4, (3, 3), stride = 2) -> relu -> r: deconvolution(1, (1, 1), with_bias = false) -> relu).boxed(),
            network!(deconvolution(4, (3, 3), stride = 2) -> apart -> r: deconvolution(1, (1, 1), with_bias = false) -> apart)
                .boxed(),
        ),
        (
            &images,
            network!(depthwise_deconvolution((2, 2), divisor = 2) -> relu).boxed(),
            network!(depthwise_deconvolution((2, 2), divisor = 2) -> apart).boxed(),
        ),
        (&batch, network!(bn -> relu).boxed(), network!(bn -> apart).boxed()),
        (
            &images,
            network!(bn -> relu -> n: bn -> relu).boxed(),
            network!(bn -> apart -> n: bn -> apart).boxed(),
        ),
        (
            &images,
            network!(bn(axes = [1, 3], beta_init = 0.1) -> relu).boxed(),
            network!(bn(axes = [1, 3], beta_init = 0.1) -> apart).boxed(),
        ),
        (
            &images,
            network!(bn(batch_stat = false, beta_init = 0.1) -> relu).boxed(),
            network!(bn(batch_stat = false, beta_init = 0.1) -> apart).boxed(),
        ),
        (
            &batch,
            network!(add { a: affine(4), _ } -> relu).boxed(),
            network!(add { a: affine(4), _ } -> apart).boxed(),
        ),
        (
            &batch,
            network! {
                < residual { a: affine(4) -> relu } -> relu -> add { _, b: affine(4), c: affine(4) } -> relu >
            }
            .boxed(),
            network! {
                < residual { a: affine(4) -> apart } -> apart -> add { _, b: affine(4), c: affine(4) } -> apart >
            }
            .boxed(),
        ),
    ];
    for (i, (x, joined, alone)) in pairs.iter().enumerate() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let x = x.to_dtype(dtype)?;
            assert_eq!(bits(&x, &**joined)?, bits(&x, &**alone)?, "pair {i} in {dtype:?}");
        }
        assert_eq!(composed(|| bits(x, &**joined))?, composed(|| bits(x, &**alone))?, "pair {i}, composed");
    }
    Ok(())
}

#[test]
fn layers_that_can_are_joined() -> Result<()> {
    let x = noise(&[6, 4])?;
    let is_joined = |before: Before<Tensor, Tensor>| match before {
        Before::Both(y) => values(&y).map(|y| y.iter().all(|&y| y >= 0.0)),
        Before::Alone(_) => Ok(false),
    };
    ParameterStore::new().enter(|| {
        assert!(is_joined(run_before(unlabelled("affine", 1, 1, &x), affine(&x, 5), &relu)?)?);
        assert!(is_joined(run_before(unlabelled("bn", 1, 1, &x), bn(&x), &relu)?)?);
        let images = noise(&[3, 2, 5, 7])?;
        let conv = unlabelled("convolution", 1, 1, &images);
        assert!(is_joined(run_before(conv, convolution(&images, 3, (3, 3)), &relu)?)?);
        let deconv = unlabelled("deconvolution", 1, 1, &images);
        assert!(is_joined(run_before(deconv, deconvolution(&images, 3, (3, 3)), &relu)?)?);
        assert!(test_mode(|| is_joined(run_before(unlabelled("bn", 1, 1, &x), bn(&x), &relu)?))?);
        assert!(is_joined(add_before(join("add", 1, &x), [x.clone(), x.clone()], &relu)?)?);

        assert!(!is_joined(run_before(unlabelled("affine", 1, 1, &x), affine(&x, 5), &apart)?)?);
        assert!(!is_joined(run_before(unlabelled("dense", 1, 1, &x), dense(&x, 5), &relu)?)?);
        assert!(!is_joined(run_before(unlabelled("relu", 1, 1, &x), relu(&x), &relu)?)?);
        // An offer that was not taken is not there for the next layer.
        assert!(values(&affine(&x, 5).call()?)?.iter().any(|&y| y < 0.0));
        Ok(())
    })
}

/// Two layers, of which the first must not take the `relu` behind both.
#[parametric_function]
fn two(inp: &Tensor) -> Result<Tensor> {
    let h = affine(inp, 5).name("first").call()?;
    batch_normalization(&h).name("second").call()
}

#[test]
fn layers_inside_of_others_are_not() -> Result<()> {
    let x = noise(&[6, 4])?;
    let closure =
        network!((|x: &Tensor| affine(&affine(x, 5).name("a").call()?, 3).name("b").call()) -> relu);
    let closure_apart =
        network!((|x: &Tensor| affine(&affine(x, 5).name("a").call()?, 3).name("b").call()) -> apart);
    assert_eq!(bits(&x, &*closure)?, bits(&x, &*closure_apart)?);
    assert_eq!(bits(&x, &*network!(two -> relu))?, bits(&x, &*network!(two -> apart))?);
    Ok(())
}

#[test]
fn another_relu_is_itself() -> Result<()> {
    fn negated(net: &Network<impl Fn(&Tensor) -> Result<Tensor>>) -> Result<()> {
        let x = noise(&[6, 4])?;
        ParameterStore::new().enter(|| {
            let y = values(&net(&x)?)?;
            let expected = values(&(affine(&x, 5).call()? * -2.0)?)?;
            assert_eq!(y, expected);
            Ok(())
        })
    }
    mod own {
        pub(super) fn relu(x: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
            x * -2.0
        }
    }
    mod generic {
        pub(super) fn relu<T: AsRef<candle_core::Tensor>>(x: &T) -> candle_core::Result<candle_core::Tensor> {
            x.as_ref() * -2.0
        }
    }
    {
        use own::relu;
        negated(&network!(affine(5) -> relu))?;
    }
    {
        use generic::relu;
        negated(&network!(affine(5) -> relu))?;
    }
    negated(&network!(affine(5) -> own::relu))?;
    let factor = -2.0;
    let relu = |x: &Tensor| times(x, factor);
    negated(&network!(affine(5) -> relu))
}

#[test]
fn a_name_for_what_comes_before_keeps_it_apart() -> Result<()> {
    let x = noise(&[6, 4])?;
    ParameterStore::new().enter(|| {
        let net = network!(affine(5) as before -> relu as after -> use((before, after)));
        let (before, after) = net(&x)?;
        assert!(values(&before)?.iter().any(|&y| y < 0.0));
        assert_eq!(values(&relu(&before)?)?, values(&after)?);
        Ok(())
    })
}

#[test]
fn reports_see_both() -> Result<()> {
    ParameterStore::new().enter(|| {
        let net = network!(affine(5) -> relu -> add { _, _ } -> relu);
        let summary = net.summary([[6, 4]])?.to_string();
        assert!(["\n│ relu ", "\n│ relu_2 "].iter().all(|row| summary.contains(row)), "{summary}");
        Ok(())
    })
}

#[test]
fn errors_are_those_of_the_stage() {
    let error = |net: &dyn Fn(&Tensor) -> Result<Tensor>| error_of(|| net(&noise(&[6, 4])?));
    let joined = error(&*network!(affine(5, base_axis = 7) -> relu));
    assert_eq!(joined, error(&*network!(affine(5, base_axis = 7) -> apart)));
    assert!(matches!(
        ParameterStore::new().enter(|| network!(add { _, a: affine(5) } -> relu)(&noise(&[6, 4])?)),
        Err(Error::InLayer { layer: "add", .. })
    ));
}
