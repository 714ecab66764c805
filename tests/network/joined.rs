//! `relu` that is run in one with the stage before it.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor, Var};
use layerfn::__private::{Fuses, composed};
use layerfn::functions::relu;
use layerfn::{
    Error, Network, ParameterStore, ParametricFunction, Result, affine, backward, batch_normalization, bn,
    convolution, deconvolution, depthwise_convolution, depthwise_deconvolution, network, parametric_function,
    test_mode,
};

use super::layers::times;
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

/// Whether a layer that is told of `relu` says that it applies it, and does.
fn applies_relu<L: ParametricFunction<Output = Tensor> + Fuses>(mut layer: L) -> Result<bool> {
    Ok(!layer.fuse(&apart) && layer.fuse(&relu) && values(&layer.call()?)?.iter().all(|&y| y >= 0.0))
}

#[test]
fn layers_that_can_apply_relu() -> Result<()> {
    let x = noise(&[6, 4])?;
    let images = noise(&[3, 2, 5, 7])?;
    ParameterStore::new().enter(|| {
        assert!(applies_relu(affine(&x, 5))?);
        assert!(applies_relu(bn(&x))?);
        assert!(test_mode(|| applies_relu(bn(&x)))?);
        assert!(applies_relu(convolution(&images, 3, (3, 3)))?);
        assert!(applies_relu(depthwise_convolution(&images, (3, 3)))?);
        assert!(applies_relu(deconvolution(&images, 3, (3, 3)))?);
        assert!(applies_relu(depthwise_deconvolution(&images, (3, 3)))?);
        // A layer that is told of nothing leaves its output alone.
        assert!(values(&affine(&x, 5).call()?)?.iter().any(|&y| y < 0.0));
        Ok(())
    })
}

thread_local! {
    /// How often [`negated`] has been called, and how often [`offset`] has applied it.
    static CALLS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// An activation of one's own.
fn negated(x: &Tensor) -> candle_core::Result<Tensor> {
    CALLS.set((CALLS.get().0 + 1, CALLS.get().1));
    x.neg()
}

/// Adds a half; a layer of one's own that fuses with an activation of one's own.
#[parametric_function(
    scope = "offset",
    fuses(negated, self::doubled),
    params(
        /// What is added.
        b: [1] = 0.5,
    )
)]
fn offset(inp: &Tensor) -> Result<Tensor> {
    let y = inp.broadcast_add(&param!(b)?)?;
    if negated_fused {
        CALLS.set((CALLS.get().0, CALLS.get().1 + 1));
        return Ok(y.neg()?);
    }
    Ok(if doubled_fused { (y * 2.0)? } else { y })
}

fn doubled(_: &Tensor) -> Result<Tensor> {
    panic!("`offset` applies it")
}

/// Calls of [`negated`] and uses of it by [`offset`] in a run of `net`, and what that gives for 1.
fn calls(net: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<(u32, u32, f32)> {
    CALLS.set((0, 0));
    let y = ParameterStore::new().enter(|| net(&Tensor::ones(1, DType::F32, &Device::Cpu)?))?;
    Ok((CALLS.get().0, CALLS.get().1, values(&y)?[0]))
}

#[test]
fn a_layer_of_ones_own_fuses_with_a_function_of_ones_own() -> Result<()> {
    assert_eq!(calls(&*network!(offset -> negated))?, (0, 1, -1.5));
    assert_eq!(calls(&*network!(o: offset -> self::negated as _y -> negated))?, (1, 1, 1.5));
    assert_eq!(calls(&*network!(negated -> offset -> negated -> n: offset -> doubled))?, (1, 1, 2.0));
    assert_eq!(calls(&*network!(for i in 0..3 { o[i]: offset -> negated }))?, (0, 3, -0.5 - 1.0 + 0.0));
    Ok(())
}

#[test]
fn a_layer_of_ones_own_leaves_apart_what_is_not_right_behind_it() -> Result<()> {
    mod other {
        /// Of the same name and type, yet another function.
        pub(super) fn negated(x: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
            x * 3.0
        }
    }
    let closure = negated as fn(&Tensor) -> candle_core::Result<Tensor>;
    assert_eq!(calls(&*network!(offset -> n: negated))?, (1, 0, -1.5));
    assert_eq!(calls(&*network!(offset as y -> negated -> use(y)))?, (1, 0, 1.5));
    assert_eq!(calls(&*network!(offset -> _ -> negated))?, (1, 0, -1.5));
    assert_eq!(calls(&*network!({ offset } -> negated))?, (1, 0, -1.5));
    assert_eq!(calls(&*network!(offset -> other::negated))?, (0, 0, 4.5));
    assert_eq!(calls(&*network!(offset -> closure))?, (1, 0, -1.5));
    assert_eq!(calls(&*network!(offset -> times(1.0) -> negated))?, (1, 0, -1.5));
    assert_eq!(calls(&|x| Ok(negated(&offset(x).call()?)?))?, (1, 0, -1.5));
    // A recording sees both.
    let recorded = |x: &Tensor| {
        assert_eq!(network!(offset -> negated).summary([[1]])?.rows().len(), 2);
        Ok(x.clone())
    };
    assert_eq!(calls(&recorded)?, (1, 0, 1.0));
    Ok(())
}

/// A layer of two outputs that fuses with a function of both.
#[parametric_function(fuses(swapped))]
fn halves(inp: &Tensor) -> Result<(Tensor, Tensor)> {
    let (a, b) = (inp.narrow(0, 0, 1)?, inp.narrow(0, 1, 1)?);
    Ok(if swapped_fused { (b, a) } else { (a, b) })
}

fn swapped(_: &(Tensor, Tensor)) -> Result<(Tensor, Tensor)> {
    panic!("`halves` applies it")
}

#[test]
fn outputs_of_any_type_fuse() -> Result<()> {
    let (a, b) = network!(halves -> swapped)(&Tensor::new(&[1f32, 2.0], &Device::Cpu)?)?;
    assert_eq!((values(&a)?, values(&b)?), (vec![2.0], vec![1.0]));
    Ok(())
}

#[test]
fn a_function_that_can_be_called_once_is_a_stage() -> Result<()> {
    network! {
        fn applied(f: impl FnOnce(&Tensor) -> Result<Tensor>) < negated -> f >
    }
    let moved = vec![2.0];
    let y = applied(&Tensor::ones(1, DType::F32, &Device::Cpu)?, |x| {
        let factor = moved.into_iter().sum::<f64>();
        Ok((x * factor)?)
    })?;
    assert_eq!(values(&y)?, [-2.0]);
    Ok(())
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
