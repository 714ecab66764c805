//! Sums of very many terms in f32 keep their digits.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::functions;
use layerfn::prelude::*;

const MILLIONS: usize = 10_000_000;

/// So many elements of one value.
fn full(value: f32, dims: &[usize]) -> Tensor {
    Tensor::full(value, dims, &Device::Cpu).unwrap()
}

fn f64s(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_near(got: &Tensor, want: f64) {
    assert_within(1e-6, got, want);
}

#[track_caller]
fn assert_within(tolerance: f64, got: &Tensor, want: f64) {
    for got in f64s(got) {
        assert!((got / want - 1.0).abs() <= tolerance, "{got}, not {want}");
    }
}

/// The gradient for `var` of the sum of what `f` gives.
fn gradient(var: &Var, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let y = f(var.as_tensor())?;
    let gradients = backward(&y.sum_all()?)?;
    Ok(gradients.get(var).unwrap().clone())
}

/// Two values in turn.
fn classes(n: usize) -> Result<Tensor> {
    let values = (0..n).map(|i| if i % 2 == 0 { 0.0 } else { -1.0 }).collect::<Vec<f32>>();
    Ok(Tensor::from_vec(values, (1, n), &Device::Cpu)?)
}

#[test]
fn probabilities_of_very_many_classes_add_up_to_one() -> Result<()> {
    for n in [50_257, 1_000_000] {
        let x = classes(n)?;
        for y in [softmax(&x, 1)?, log_softmax(&x, 1)?.exp()?] {
            let total: f64 = f64s(&y).iter().sum();
            assert!((total - 1.0).abs() < 1e-6, "{n}: {total}");
        }
        let loss = |x: &Tensor| softmax_cross_entropy(x, &Tensor::zeros(1, DType::U32, &Device::Cpu)?, 1);
        assert_near(&loss(&x)?, f64s(&loss(&x.to_dtype(DType::F64)?)?)[0]);
        let var = Var::from_tensor(&x)?;
        let total: f64 = f64s(&gradient(&var, loss)?).iter().sum();
        assert!(total.abs() < 1e-6, "{n}: {total}");
        let upstream = full(0.1, &[1, n]);
        let dx = gradient(&var, |x| Ok((softmax(x, 1)? * &upstream)?))?;
        assert!(
            f64s(&dx).iter().all(|dx| dx.abs() < 1e-6 / n as f64),
            "a constant upstream gives no gradient"
        );
    }
    Ok(())
}

#[test]
fn means_of_very_many_samples_are_right() -> Result<()> {
    ParameterStore::new().enter(|| {
        mean_subtraction(&full(1.0, &[2 * MILLIONS, 1])).call()?;
        assert_near(layerfn::get_parameter("mean_subtraction/mean").unwrap().var(), 1.0);
        Ok::<_, layerfn::Error>(())
    })?;
    let x = full(0.1, &[MILLIONS, 1]);
    assert_near(&mean_squared_error(&x, &x.zeros_like()?)?, f64::from(0.1f32 * 0.1f32));
    let (gamma, beta) = (full(1.0, &[1, 1]), full(0.0, &[1, 1]));
    let (_, mean, _) = functions::batch_normalization(&x, &beta, &gamma, &[1], 1e-3)?;
    assert_near(&mean, f64::from(0.1f32));
    let image = x.reshape((1, 1, 2500, 4000))?;
    assert_near(&global_average_pooling(&image)?, f64::from(0.1f32));
    let x = Tensor::cat(&[&x, &full(0.3, &[MILLIONS, 1])], 0)?;
    let (_, _, var) = functions::batch_normalization(&x, &beta, &gamma, &[1], 1e-3)?;
    assert_near(&var, 0.01);
    Ok(())
}

#[test]
fn reductions_of_very_many_elements_are_right() -> Result<()> {
    let exact = f64::from(0.1f32);
    for dims in [
        &[MILLIONS][..],
        &[MILLIONS, 1],
        &[MILLIONS / 2, 2],
        &[2, MILLIONS / 40, 20],
        &[100, 3, MILLIONS / 300],
    ] {
        let x = full(0.1, dims);
        let n = dims.iter().product::<usize>() as f64;
        assert_near(&functions::sum(&x, .., false)?, exact * n);
        assert_near(&functions::mean(&x, .., false)?, exact);
        assert_near(&functions::norm(&x, 2.0, .., false)?, exact * n.sqrt());
        for axis in 0..dims.len() {
            assert_near(&functions::mean(&x, axis, false)?, exact);
        }
        let total = functions::cumsum(&x.flatten_all()?, 0, false, false)?;
        assert_near(&total.narrow(0, total.elem_count() - 1, 1)?, exact * total.elem_count() as f64);
    }
    Ok(())
}

#[test]
fn gradients_of_what_is_repeated_very_often_are_right() -> Result<()> {
    let exact = f64::from(0.1f32) * MILLIONS as f64;
    let x = Var::from_tensor(&full(1.0, &[1, 2]))?;
    let tenth = |y: Tensor| Ok((y * 0.1)?);
    assert_near(&gradient(&x, |x| tenth(functions::broadcast(x, (MILLIONS, 2))?))?, exact);
    assert_near(&gradient(&x, |x| tenth(functions::tile(x, (1, MILLIONS))?))?, exact);
    assert_near(&gradient(&x, |x| tenth(functions::unpooling(x, &[MILLIONS].into(), false)?))?, exact);
    let one = Var::from_tensor(&full(1.0, &[1, 1]))?;
    let repeated = |x: &Tensor| functions::pad(x, &[0, MILLIONS - 1], functions::PadMode::Repeat, 0.0);
    assert_near(&gradient(&one, |x| tenth(repeated(x)?))?, exact);
    let size = [MILLIONS];
    let wide = |x: &Tensor| functions::interpolate(x, None, Some(&size), functions::Interpolation::default());
    assert_near(&gradient(&one, |x| tenth(wide(x)?))?, exact);
    Ok(())
}

#[test]
fn gradients_of_weights_over_very_many_samples_are_right() -> Result<()> {
    let x = full(0.1, &[MILLIONS, 1]);
    let exact = f64::from(0.1f32) * MILLIONS as f64;
    let w = Var::from_tensor(&full(1.0, &[1, 2]))?;
    let b = Var::from_tensor(&full(1.0, &[2]))?;
    assert_near(&gradient(&w, |w| functions::affine(&x, w, Some(b.as_tensor()), 1))?, exact);
    assert_near(&gradient(&b, |b| Ok((functions::affine(&x, w.as_tensor(), Some(b), 1)? * 0.1)?))?, exact);
    let indices = Tensor::zeros(MILLIONS, DType::U32, &Device::Cpu)?;
    let table = Var::from_tensor(&full(1.0, &[1, 1]))?;
    assert_near(&gradient(&table, |table| Ok((functions::embed(&indices, table)? * 0.1)?))?, exact);
    Ok(())
}

#[test]
fn gradients_of_kernels_over_very_many_pixels_are_right() -> Result<()> {
    // One map and many of them; one large image and many small ones; a kernel of 1 and of 3, in steps of 1 and 2.
    for (images, maps, side) in [(1, 1, 1400), (4, 20, 500), (4000, 1, 22), (1500, 20, 22)] {
        let x = full(0.1, &[images, maps, side, side]);
        for (kernel, stride) in [(1, 1), (3, 1), (3, 2)] {
            let w = Var::from_tensor(&full(1.0, &[maps, maps, kernel, kernel]))?;
            let (sides, one) = ([kernel; 2].into(), 1.into());
            let geometry =
                functions::ConvGeometry::new(x.dims(), &sides, &0.into(), &stride.into(), &one, 1, 1)?;
            let pixels = ((side - kernel) / stride + 1).pow(2);
            let dw = gradient(&w, |w| functions::convolution(&x, w, None, &geometry))?;
            // Winograd's transforms cost some digits by themselves.
            assert_within(5e-6, &dw, f64::from(0.1f32) * (images * pixels) as f64);
        }
    }
    Ok(())
}
