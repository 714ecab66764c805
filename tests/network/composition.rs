//! Well-known networks against the same layers called by hand.

use candle_core::{DType, Device, Tensor};
use layerfn::functions::{global_average_pooling, relu, sigmoid};
use layerfn::{
    Network, ParameterStore, Result, affine, avg_pool, batch_normalization, conv, convolution, deconvolution,
    depthwise_convolution, get_all_parameters, lstm, max_pooling, network, parameter_scope,
};

use super::architectures as nets;
use super::{noise, values};

/// Runs both in one store: the second finds the parameters of the first, or the numbers of parameters differ.
fn agree(
    dims: &[usize],
    net: impl Fn(&Tensor) -> Result<Tensor>,
    by_hand: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let x = noise(dims)?;
    let store = ParameterStore::new();
    let by_net = store.enter(|| layerfn::test_mode(|| net(&x)))?;
    let n = store.parameters().len();
    let expected = store.enter(|| layerfn::test_mode(|| by_hand(&x)))?;
    assert_eq!(store.parameters().len(), n, "{store:?}");
    assert_eq!(values(&by_net)?, values(&expected)?);
    Ok(())
}

#[test]
fn lenet() -> Result<()> {
    agree(&[2, 1, 28, 28], nets::lenet, |x| {
        let h = convolution(x, 16, (5, 5)).name("c1").call()?;
        let h = relu(&max_pooling(&h, (2, 2)).call()?)?;
        let h = convolution(&h, 16, (5, 5)).name("c2").call()?;
        let h = relu(&max_pooling(&h, (2, 2)).call()?)?;
        let h = relu(&affine(&h, 50).name("fc1").call()?)?;
        affine(&h, 10).name("out").call()
    })
}

fn block_by_hand(x: &Tensor, outmaps: usize, stride: usize) -> Result<Tensor> {
    let conv = |x: &Tensor, stride: usize, name: &str| {
        convolution(x, outmaps, (3, 3)).pad(1).stride(stride).with_bias(false).name(name).call()
    };
    let h = batch_normalization(&conv(x, stride, "c1")?).name("bn1").call()?;
    let h = batch_normalization(&conv(&relu(&h)?, 1, "c2")?).name("bn2").call()?;
    let x = if stride != 1 || x.dim(1)? != outmaps {
        parameter_scope("shortcut", || {
            let x = convolution(x, outmaps, (1, 1)).stride(stride).with_bias(false).call()?;
            batch_normalization(&x).call()
        })?
    } else {
        x.clone()
    };
    relu(&(h + x)?)
}

#[test]
fn resnet20() -> Result<()> {
    agree(&[1, 3, 32, 32], nets::resnet20, |x| {
        let h = convolution(x, 16, (3, 3)).pad(1).with_bias(false).name("stem").call()?;
        let mut h = relu(&batch_normalization(&h).name("stem").call()?)?;
        for (i, outmaps) in [16, 32, 64].into_iter().enumerate() {
            for j in 0..3 {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                let scope = format!("stage{}/block{}", i + 1, j + 1);
                h = parameter_scope(scope, || block_by_hand(&h, outmaps, stride))?;
            }
        }
        affine(&global_average_pooling(&h)?, 10).name("fc").call()
    })
}

#[test]
fn resnet18() -> Result<()> {
    agree(&[1, 3, 32, 32], nets::resnet18, |x| {
        let h = convolution(x, 64, (7, 7)).pad(3).stride(2).with_bias(false).name("stem").call()?;
        let h = relu(&batch_normalization(&h).name("stem").call()?)?;
        let mut h = max_pooling(&h, (3, 3)).stride(2).pad(1).call()?;
        for (scope, outmaps, stride) in [
            ("stage1/block1", 64, 1),
            ("stage1/block2", 64, 1),
            ("stage2/block1", 128, 2),
            ("stage2/block2", 128, 1),
            ("stage3/block1", 256, 2),
            ("stage3/block2", 256, 1),
            ("stage4/block1", 512, 2),
            ("stage4/block2", 512, 1),
        ] {
            h = parameter_scope(scope, || block_by_hand(&h, outmaps, stride))?;
        }
        affine(&global_average_pooling(&h)?, 1000).name("fc").call()
    })
}

#[test]
fn resnet18_has_the_known_number_of_parameters() -> Result<()> {
    let summary = Network::new(nets::resnet18).summary([(1, 3, 224, 224)])?;
    assert_eq!(summary.parameter_count(), 11_689_512);
    assert_eq!(summary.multiply_adds(), 1_814_073_344);
    assert!(get_all_parameters().is_empty());
    Ok(())
}

#[test]
fn mobilenet() -> Result<()> {
    agree(
        &[1, 3, 16, 16],
        |x| nets::mobilenet(x, 5),
        |x| {
            let norm = |x: &Tensor, name: &str| relu(&batch_normalization(x).name(name).call()?);
            let h = convolution(x, 32, (3, 3)).pad(1).stride(2).with_bias(false).name("stem").call()?;
            let mut h = norm(&h, "stem")?;
            for (i, (outmaps, stride)) in [(64, 1), (128, 2), (128, 1), (256, 2)].into_iter().enumerate() {
                h = parameter_scope(format!("separable{}", i + 1), || {
                    let h =
                        depthwise_convolution(&h, (3, 3)).pad(1).stride(stride).with_bias(false).call()?;
                    let h = convolution(&norm(&h, "")?, outmaps, (1, 1)).with_bias(false).call()?;
                    norm(&h, "bn_2")
                })?;
            }
            affine(&global_average_pooling(&h)?, 5).name("fc").call()
        },
    )
}

#[test]
fn inception() -> Result<()> {
    agree(
        &[1, 6, 9, 9],
        |x| nets::inception(x, 4, 8, 4, 3),
        |x| {
            let conv = |x: &Tensor, n: usize, k: usize, name: &str| {
                relu(&convolution(x, n, (k, k)).pad(k / 2).name(name).call()?)
            };
            let one = conv(x, 4, 1, "one")?;
            let three = conv(&conv(x, 4, 1, "three/reduce")?, 8, 3, "three")?;
            let five = conv(&conv(x, 2, 1, "five/reduce")?, 4, 5, "five")?;
            let pool = conv(&max_pooling(x, (3, 3)).stride(1).pad(1).call()?, 3, 1, "pool")?;
            Ok(Tensor::cat(&[one, three, five, pool], 1)?)
        },
    )
}

#[test]
fn lstm_classifier() -> Result<()> {
    agree(
        &[2, 4, 3],
        |x| nets::lstm_classifier(x, 5, 3),
        |x| {
            let zeros = Tensor::zeros((2, 5), DType::F32, &Device::Cpu)?;
            let (mut h1, mut c1, mut h2, mut c2) = (zeros.clone(), zeros.clone(), zeros.clone(), zeros);
            for t in 0..4 {
                let step = x.narrow(1, t, 1)?.squeeze(1)?.contiguous()?;
                (h1, c1) = lstm(&step, &h1, &c1, 5).name("lstm1").call()?;
                (h2, c2) = lstm(&h1, &h2, &c2, 5).name("lstm2").call()?;
            }
            affine(&h2, 3).name("fc").call()
        },
    )
}

#[test]
fn unet() -> Result<()> {
    fn double(x: &Tensor, n: usize, name: &str) -> Result<Tensor> {
        parameter_scope(name, || {
            let h = relu(&convolution(x, n, (3, 3)).pad(1).name("c1").call()?)?;
            relu(&convolution(&h, n, (3, 3)).pad(1).name("c2").call()?)
        })
    }
    fn up(x: &Tensor, n: usize, name: &str) -> Result<Tensor> {
        deconvolution(x, n, (2, 2)).stride(2).name(name).call()
    }
    let pool = |x: &Tensor| max_pooling(x, (2, 2)).call();
    agree(
        &[1, 1, 16, 16],
        |x| nets::unet(x, 4, 2),
        |x| {
            let d1 = double(x, 4, "down1")?;
            let d2 = double(&pool(&d1)?, 8, "level2/down")?;
            let d3 = double(&pool(&d2)?, 16, "level2/level3")?;
            let u2 = double(&Tensor::cat(&[&d2, &up(&d3, 8, "level2/level3/up")?], 1)?, 8, "level2")?;
            let u1 = double(&Tensor::cat(&[&d1, &up(&u2, 4, "level2/up")?], 1)?, 4, "up1")?;
            convolution(&u1, 2, (1, 1)).name("out").call()
        },
    )
}

#[test]
fn autoencoder() -> Result<()> {
    let by_hand = |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let z = parameter_scope("encoder", || {
            affine(&relu(&affine(x, 128).call()?)?, 4).name("affine_2").call()
        })?;
        let y = parameter_scope("decoder", || {
            affine(&relu(&affine(&z, 128).call()?)?, 784).name("affine_2").call()
        })?;
        Ok((z, sigmoid(&y)?))
    };
    agree(&[2, 784], |x| Ok(nets::autoencoder(x, 4)?.1), |x| Ok(by_hand(x)?.1))?;
    agree(&[2, 784], |x| Ok(nets::autoencoder(x, 4)?.0), |x| Ok(by_hand(x)?.0))
}

#[test]
fn auxiliary_head() -> Result<()> {
    let net = network! {
        stem: conv(4, (3, 3)) -> relu
            -> tuple { main: { avg_pool((2, 2)) -> affine(3) }, aux: { global_average_pooling -> affine(3) } }
    };
    agree(
        &[1, 2, 6, 6],
        |x| Ok(net.forward(x)?.1),
        |x| {
            let h = relu(&convolution(x, 4, (3, 3)).name("stem").call()?)?;
            affine(&avg_pool(&h, (2, 2)).call()?, 3).name("main").call()?;
            affine(&global_average_pooling(&h)?, 3).name("aux").call()
        },
    )
}
