//! Ranks that compute together.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use layerfn::communicator::{Communicator, Local};
use layerfn::prelude::*;
use layerfn::solver::{Momentum, Solver};
use layerfn::training::{DataParallel, TrainState};

use crate::values;

/// The element `i` of the tensor `number` of a rank.
fn element(rank: usize, number: usize, i: usize) -> f64 {
    ((rank + 1) * (i % 17 + 3) + number) as f64 / 8.0
}

fn tensor(rank: usize, number: usize, n: usize, dtype: DType) -> Result<Tensor> {
    let elements: Vec<f64> = (0..n).map(|i| element(rank, number, i)).collect();
    Ok(Tensor::from_vec(elements, n, &Device::Cpu)?.to_dtype(dtype)?)
}

#[test]
fn collectives_do_what_they_say() -> Result<()> {
    for size in 1..=4 {
        for n in [0, 1, 3, 1001] {
            for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
                Local::new(size).run(move |communicator| check_collectives(&communicator, n, dtype))?;
            }
        }
    }
    Ok(())
}

fn check_collectives(communicator: &Communicator, n: usize, dtype: DType) -> Result<()> {
    let (rank, size) = (communicator.rank(), communicator.size());
    let own = |number| tensor(rank, number, n, dtype);
    // In the order of the ranks, rounded as the type rounds.
    let sum = |number| -> Result<Tensor> {
        (1..size)
            .try_fold(tensor(0, number, n, dtype)?, |sum, rank| Ok((sum + tensor(rank, number, n, dtype)?)?))
    };
    for division in [false, true] {
        let wanted = |number| -> Result<Vec<f64>> {
            values(&if division { (sum(number)? / size as f64)? } else { sum(number)? })
        };
        let reduced = communicator.all_reduce(&[own(0)?, own(1)?], division)?;
        assert_eq!([values(&reduced[0])?, values(&reduced[1])?], [wanted(0)?, wanted(1)?]);
        let root = size - 1;
        match communicator.reduce(&[own(2)?], root, division)? {
            Some(reduced) => assert_eq!((rank, values(&reduced[0])?), (root, wanted(2)?)),
            None => assert_ne!(rank, root),
        }
        let of_ranks = (0..size).map(own).collect::<Result<Vec<_>>>()?;
        assert_eq!(values(&communicator.reduce_scatter(&of_ranks, division)?)?, wanted(rank)?);
    }
    let root = size / 2;
    assert_eq!(values(&communicator.broadcast(&[own(5)?], root)?[0])?, values(&tensor(root, 5, n, dtype)?)?);
    let gathered = communicator.all_gather(&tensor(rank, 0, n + rank, dtype)?)?;
    for (rank, gathered) in gathered.iter().enumerate() {
        assert_eq!(values(gathered)?, values(&tensor(rank, 0, n + rank, dtype)?)?);
    }
    communicator.barrier()
}

#[test]
fn groups_are_communicators_of_some_ranks() -> Result<()> {
    Local::new(4).run(|communicator| {
        let rank = communicator.rank();
        let odd = communicator.new_group("odd", &[3, 1])?;
        assert_eq!(odd.is_some(), rank % 2 == 1);
        assert_eq!(communicator.list_groups(), ["world", "odd"]);
        assert!(communicator.new_group("odd", &[0]).is_err());
        assert!(communicator.new_group("twice", &[0, 0]).is_err());
        if let Some(odd) = communicator.find_group("odd") {
            assert_eq!((odd.rank(), odd.size()), (usize::from(rank == 1), 2));
            let sum = odd.all_reduce(&[Tensor::new(&[rank as f32], &Device::Cpu)?], false)?;
            assert_eq!(values(&sum[0])?, [4.0]);
        }
        communicator.barrier()
    })?;
    Ok(())
}

/// Trains on so many ranks, and goes on with the states of an earlier run; the bytes of all parameters and of the solver.
fn trained(ranks: usize, steps: std::ops::Range<u64>, from: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let states = Local::new(ranks).run(move |communicator| {
        let network = network! { affine(12) -> bn -> relu -> dropout -> out: affine(3) };
        let model = network.init((1, 5))?;
        let mut solver = Momentum::new(0.1, 0.9);
        solver.set_parameters(&model.parameters());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.safetensors");
        if let Some(from) = &from {
            std::fs::write(&file, from).unwrap();
            TrainState::new().with("model", &model).with("solver", &mut solver).load(&file)?;
        }
        let mut parallel = DataParallel::new(&communicator, model.store(), 6)?;
        for step in steps.clone() {
            // 22 examples in 6 micro-batches of 3 or 4.
            let x: Vec<f32> =
                (0..22 * 5).map(|i| ((i as u64 * 7 + step * 13) % 19) as f32 / 9.0 - 1.0).collect();
            let x = Tensor::from_vec(x, (22, 5), &Device::Cpu)?;
            let labels = Tensor::from_vec((0..22u32).map(|i| i % 3).collect(), 22, &Device::Cpu)?;
            let found = parallel.step(22, |rows| {
                let x = x.narrow(0, rows.start, rows.len())?;
                let labels = labels.narrow(0, rows.start, rows.len())?;
                mean_softmax_cross_entropy(&model.forward(&x)?, &labels, 1)
            })?;
            assert!(found.loss.is_finite());
            solver.update(&found.gradients)?;
        }
        communicator.check_parameters(&model.store().parameters())?;
        TrainState::new().with("model", &model).with("solver", &mut solver).save(&file)?;
        Ok(std::fs::read(&file).unwrap())
    })?;
    assert!(states.iter().all(|state| *state == states[0]), "the ranks differ");
    Ok(states[0].clone())
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() -> Result<()> {
    let one = trained(1, 0..6, None)?;
    for ranks in [2, 3, 4, 7] {
        assert_eq!(trained(ranks, 0..6, None)?, one, "{ranks} ranks");
    }
    let half = trained(2, 0..3, None)?;
    assert_ne!(half, one);
    assert_eq!(trained(3, 3..6, Some(half))?, one, "going on with another number");
    Ok(())
}

#[test]
fn the_mean_over_micro_batches_is_the_gradient_of_the_batch() -> Result<()> {
    let found = Local::new(3).run(|communicator| {
        let model = network! { affine(4) -> tanh -> out: affine(2) }.init((1, 3))?;
        let mut parallel = DataParallel::new(&communicator, model.store(), 4)?;
        let x = Tensor::from_vec((0..30).map(|i| (i % 7) as f32 / 7.0).collect(), (10, 3), &Device::Cpu)?;
        let loss = |x: &Tensor| -> Result<Tensor> { Ok(model.forward(x)?.sqr()?.mean_all()?) };
        let step = parallel.step(10, |rows| loss(&x.narrow(0, rows.start, rows.len())?))?;
        let whole = backward(loss(&x)?)?;
        let mut largest = (step.loss - f64::from(loss(&x)?.to_scalar::<f32>()?)).abs();
        for var in model.parameters().vars() {
            let (a, b) = (step.gradients.get(&var).unwrap(), whole.get(&var).unwrap());
            largest = values(&(a - b)?.abs()?)?.into_iter().fold(largest, f64::max);
        }
        Ok(largest)
    })?;
    assert!(found.iter().all(|error| *error < 1e-6), "{found:?}");
    Ok(())
}

#[test]
fn a_rank_that_fails_ends_the_others() {
    let limit = Duration::from_millis(300);
    let run = |failure: fn() -> Result<()>| {
        let begun = Instant::now();
        let result = Local::new(3).time_limit(limit).run(move |communicator| {
            if communicator.rank() == 1 {
                failure()?;
            }
            communicator.barrier()?;
            communicator.barrier()
        });
        assert!(begun.elapsed() < Duration::from_secs(20), "it hangs");
        result.unwrap_err().to_string()
    };
    assert_eq!(run(|| panic!("no more")), "rank 1 panicked: no more");
    assert_eq!(
        run(|| Err(layerfn::Error::invalid("x", "must be there", "none"))),
        "`x` must be there, got \"none\""
    );
    let hung = run(|| {
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    });
    assert_eq!(hung, "rank 1 has sent nothing for 300ms");
}

#[test]
fn parameters_that_differ_are_found_by_path() {
    let run = |outmaps: fn(usize) -> usize, set: bool| {
        let result = Local::new(2).run(move |communicator| {
            let rank = communicator.rank();
            let model = network! { first: affine(3) -> out: affine(outmaps(rank)) }.init((1, 2))?;
            if set && rank == 1 {
                let parameter = model.store().get("out/affine/b").unwrap();
                parameter.var().set(&Tensor::ones(2, DType::F32, &Device::Cpu)?)?;
                communicator.check_parameters(&model.store().parameters())?;
            } else if set {
                communicator.check_parameters(&model.store().parameters())?;
            }
            DataParallel::new(&communicator, model.store(), 2).map(drop)
        });
        result.map_err(|error| error.to_string())
    };
    assert_eq!(
        run(|rank| 2 + rank, false).unwrap_err(),
        "rank 1 has the parameter `out/affine/W` as F32 of [3, 3], rank 0 as F32 of [3, 2]"
    );
    assert_eq!(
        run(|_| 2, true).unwrap_err(),
        "rank 1 has other values in the parameter `out/affine/b` than rank 0"
    );
    assert!(run(|_| 2, false).is_ok());
}
