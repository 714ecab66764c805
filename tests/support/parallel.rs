//! A training by micro-batches, on ranks of any transport.

use std::ops::Range;

use candle_core::{Device, Tensor};
use layerfn::communicator::Communicator;
use layerfn::prelude::*;
use layerfn::solver::{Momentum, Solver};
use layerfn::training::{DataParallel, TrainState};

/// How a step is taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// `step`, with packs of the default size.
    OneByOne,
    /// With so many bytes in a pack.
    Packs(usize),
    /// `step_together`, with a network that needs it.
    Together,
    /// `fast_sums`.
    Fast,
}

/// Trains for these steps, from the first values or from the bytes of an earlier training. All ranks call it; the bytes of all
/// parameters and of the solver.
///
/// # Errors
/// Those of the training, and that the ranks end with other parameters.
///
/// # Panics
/// If there is no folder for files.
pub fn train(
    communicator: &Communicator,
    way: Way,
    steps: Range<u64>,
    from: Option<&[u8]>,
) -> Result<Vec<u8>> {
    let plain = network! { affine(12) -> bn -> relu -> dropout -> out: affine(3) };
    let together = network! {
        affine(12) -> bn -> relu -> dropout -> sync: sync_batch_normalization -> affine(7)
            -> dropout -> last: sync_batch_normalization -> relu -> out: affine(3)
    };
    // In a store of its own: a process may train more than once.
    let model = ParameterStore::new().enter(|| match way {
        Way::Together => together.boxed().init((1, 5)),
        _ => plain.boxed().init((1, 5)),
    })?;
    let mut solver = Momentum::new(0.1, 0.9);
    solver.set_parameters(&model.parameters());
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("state.safetensors");
    if let Some(from) = from {
        std::fs::write(&file, from).expect("a file");
        TrainState::new().with("model", &model).with("solver", &mut solver).load(&file)?;
    }
    let mut parallel = DataParallel::new(communicator, model.store(), 6)?;
    parallel = match way {
        Way::Packs(bytes) => parallel.pack_size(bytes),
        Way::Fast => parallel.fast_sums(),
        Way::OneByOne | Way::Together => parallel,
    };
    for step in steps {
        // 22 examples in 6 micro-batches of 3 or 4; at last 4, so that two micro-batches have none.
        let n = if step == 5 { 4 } else { 22 };
        let x: Vec<f32> = (0..n * 5).map(|i| ((i as u64 * 7 + step * 13) % 19) as f32 / 9.0 - 1.0).collect();
        let x = Tensor::from_vec(x, (n, 5), &Device::Cpu)?;
        let labels = Tensor::from_vec((0..n as u32).map(|i| i % 3).collect(), n, &Device::Cpu)?;
        let loss = |rows: Range<usize>| {
            let x = x.narrow(0, rows.start, rows.len())?;
            let labels = labels.narrow(0, rows.start, rows.len())?;
            mean_softmax_cross_entropy(&model.forward(&x)?, &labels, 1)
        };
        let found = match way {
            Way::Together => parallel.step_together(n, loss)?,
            _ => parallel.step(n, loss)?,
        };
        assert!(found.loss.is_finite(), "the loss of step {step}");
        solver.update(&found.gradients)?;
    }
    communicator.check_parameters(&model.store().parameters())?;
    TrainState::new().with("model", &model).with("solver", &mut solver).save(&file)?;
    Ok(std::fs::read(&file).expect("what was saved"))
}
