//! Ranks that compute together.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use layerfn::BatchStat;
use layerfn::communicator::{Communicator, Local, Transport};
use layerfn::prelude::*;
use layerfn::training::DataParallel;

use layerfn_tests::support::collectives;
use layerfn_tests::support::parallel::{self, Way};

use crate::values;

#[test]
fn collectives_do_what_they_say() -> Result<()> {
    for size in 1..=4 {
        for n in [0, 1, 3, 1001, 20_011] {
            for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
                Local::new(size)
                    .run(move |communicator| collectives::check(&communicator, n, dtype, &Device::Cpu))?;
            }
        }
    }
    Ok(())
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
fn trained(ranks: usize, way: Way, steps: Range<u64>, from: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let states = Local::new(ranks)
        .run(move |communicator| parallel::train(&communicator, way, steps.clone(), from.as_deref()))?;
    assert!(states.iter().all(|state| *state == states[0]), "the ranks differ");
    Ok(states[0].clone())
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() -> Result<()> {
    for way in [Way::OneByOne, Way::Together] {
        let one = trained(1, way, 0..6, None)?;
        for ranks in [2, 3, 4, 7] {
            assert!(trained(ranks, way, 0..6, None)? == one, "{ranks} ranks");
        }
        let half = trained(2, way, 0..3, None)?;
        assert!(half != one);
        for ranks in [1, 3, 4] {
            assert!(trained(ranks, way, 3..6, Some(half.clone()))? == one, "going on with {ranks} ranks");
        }
    }
    Ok(())
}

#[test]
fn packs_of_any_size_give_the_same_bits() -> Result<()> {
    let one = trained(1, Way::OneByOne, 0..6, None)?;
    for (ranks, bytes) in [(1, 1), (2, 0), (2, 200), (3, 500), (4, 1 << 40)] {
        assert!(
            trained(ranks, Way::Packs(bytes), 0..6, None)? == one,
            "{ranks} ranks, packs of {bytes} bytes"
        );
    }
    Ok(())
}

/// Trains a step of a network of one kind of parameters, by sums in order and by fast ones; the largest difference.
fn difference_of_fast_sums(ranks: usize, dtype: DType) -> Result<f64> {
    let found = Local::new(ranks).run(move |communicator| {
        let x = (0..60).map(|i| f64::from(i * 7 % 11) / 11.0).collect();
        let x = Tensor::from_vec(x, (20, 3), &Device::Cpu)?.to_dtype(dtype)?;
        let model = network! { affine(9) -> bn -> tanh -> out: affine(2) }.init(&x)?;
        let mut steps = Vec::new();
        for is_fast in [false, true] {
            let mut parallel = DataParallel::new(&communicator, model.store(), 6)?.pack_size(40);
            parallel = if is_fast { parallel.fast_sums() } else { parallel };
            steps.push(parallel.step(20, |rows| {
                Ok(model.forward(&x.narrow(0, rows.start, rows.len())?)?.sqr()?.mean_all()?)
            })?);
        }
        let mut largest = (steps[0].loss - steps[1].loss).abs();
        for var in model.parameters().vars() {
            let [a, b] = [&steps[0], &steps[1]].map(|step| step.gradients.get(&var).unwrap());
            assert_eq!(a.dtype(), dtype);
            largest = values(&(a - b)?.abs()?)?.into_iter().fold(largest, f64::max);
        }
        Ok(largest)
    })?;
    Ok(found.into_iter().fold(0.0, f64::max))
}

#[test]
fn fast_sums_differ_in_the_last_bits_only() -> Result<()> {
    for ranks in [1, 2, 3, 5] {
        let wide = difference_of_fast_sums(ranks, DType::F64)?;
        // Only the loss is sent as `f32`.
        assert!(wide < 1e-7, "{ranks} ranks, f64: {wide}");
        let narrow = difference_of_fast_sums(ranks, DType::F32)?;
        assert!(narrow < 1e-6, "{ranks} ranks, f32: {narrow}");
        // All ranks have the same.
        trained(ranks, Way::Fast, 0..6, None)?;
    }
    Ok(())
}

/// The gradients of a network with parameters of all types, and the loss, of a step on so many ranks in packs of so many bytes.
fn of_all_types(ranks: usize, pack_size: usize) -> Result<Vec<Vec<f64>>> {
    let run = move |communicator: Communicator| {
        let x =
            Tensor::from_vec((0..52).map(|i| f64::from(i * i % 17) / 9.0).collect(), (13, 4), &Device::Cpu)?;
        let loss = |rows: Range<usize>| -> Result<Tensor> {
            let mut x = x.narrow(0, rows.start, rows.len())?;
            for (name, dtype) in [("a", DType::F64), ("b", DType::F32), ("c", DType::BF16), ("d", DType::F64)]
            {
                x = affine(&x.to_dtype(dtype)?, 3).name(name).call()?;
            }
            Ok(x.sqr()?.mean_all()?)
        };
        let store = ParameterStore::with_seed(5);
        store.enter(|| {
            loss(0..1)?; // makes the parameters
            let step = DataParallel::new(&communicator, &store, 5)?.pack_size(pack_size).step(13, loss)?;
            let mut found = vec![vec![step.loss]];
            for (path, parameter) in store.parameters().iter() {
                let gradient = step.gradients.get(parameter.var()).unwrap();
                assert_eq!(gradient.dtype(), parameter.var().dtype(), "{path}");
                found.push(values(gradient)?);
            }
            Ok(found)
        })
    };
    let mut found = Local::new(ranks).run(run)?;
    assert!(found.iter().all(|of_rank| *of_rank == found[0]), "the ranks differ");
    Ok(found.swap_remove(0))
}

#[test]
fn parameters_of_all_types_have_the_same_bits() -> Result<()> {
    let one = of_all_types(1, 0)?;
    assert_eq!(one.len(), 9);
    for (ranks, pack_size) in [(1, 1 << 20), (2, 0), (2, 70), (3, 1 << 20), (5, 30), (6, 0)] {
        assert!(of_all_types(ranks, pack_size)? == one, "{ranks} ranks, packs of {pack_size} bytes");
    }
    Ok(())
}

/// Ranks that count the bytes that they send.
struct Counting {
    rank: usize,
    to: Vec<Mutex<Sender<Vec<u8>>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
    bytes: AtomicUsize,
}

impl Transport for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn local_rank(&self) -> usize {
        self.rank
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        self.bytes.fetch_add(message.len(), Ordering::Relaxed);
        self.to[to].lock().unwrap().send(message).unwrap();
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        Ok(self.from[from].lock().unwrap().recv().unwrap())
    }

    fn abort(&self, reason: &str) {
        panic!("{reason}");
    }
}

/// The bytes that each rank sends in a step, a weight.
fn bytes_a_weight(ranks: usize, n_micro: usize) -> Result<Vec<f64>> {
    let mut channels: Vec<Vec<_>> = (0..ranks)
        .map(|_| (0..ranks).map(|_| channel()).map(|(to, from)| (to, Some(from))).collect())
        .collect();
    let mut transports = Vec::new();
    for rank in 0..ranks {
        let to = channels[rank].iter().map(|(to, _)| Mutex::new(to.clone())).collect();
        let from = channels.iter_mut().map(|of| Mutex::new(of[rank].1.take().unwrap())).collect();
        transports.push(Arc::new(Counting { rank, to, from, bytes: AtomicUsize::new(0) }));
    }
    let run = |transport: Arc<Counting>| {
        let communicator = Communicator::new(transport.clone());
        let model =
            ParameterStore::new().enter(|| network! { affine(99) -> out: affine(300) }.init((1, 99)))?;
        let mut parallel = DataParallel::new(&communicator, model.store(), n_micro)?;
        let x = Tensor::ones((16, 99), DType::F32, &Device::Cpu)?;
        let before = transport.bytes.load(Ordering::Relaxed);
        parallel.step(16, |rows| {
            Ok(model.forward(&x.narrow(0, rows.start, rows.len())?)?.sqr()?.mean_all()?)
        })?;
        let weights: usize = model.parameters().vars().iter().map(|var| var.elem_count()).sum();
        Ok((transport.bytes.load(Ordering::Relaxed) - before) as f64 / weights as f64)
    };
    std::thread::scope(|threads| {
        let started: Vec<_> =
            transports.into_iter().map(|transport| threads.spawn(|| run(transport))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_step_sends_as_few_bytes_as_there_have_to_be() -> Result<()> {
    // Sums of several micro-batches are sent as `f64`, gradients of one as they are, and means as `f32`.
    for (ranks, n_micro, wanted) in [(2, 2, 4.0), (4, 4, 6.0), (4, 8, 9.0), (2, 8, 6.0)] {
        for bytes in bytes_a_weight(ranks, n_micro)? {
            assert!((bytes - wanted).abs() < 0.01, "{ranks} ranks, {n_micro} micro-batches: {bytes}");
        }
    }
    Ok(())
}

/// The gradients of all parameters and the running statistics, by path: of a step on so many ranks, or of the whole batch in one
/// process with plain batch normalization, if there are none.
fn of_statistics(ranks: Option<usize>, composed: bool) -> Result<Vec<(String, Vec<f64>)>> {
    let run = move |communicator: Communicator| {
        let (n, wide) = (11i32, DType::F64);
        // Far from 0, and so that parts differ in their means.
        let x = (0..n * 3 * 4).map(|i| f64::from(i * i % 23) / 7.0 + 50.0 + f64::from(i / 24)).collect();
        let x = Tensor::from_vec(x, (n as usize, 3, 2, 2), &Device::Cpu)?.to_dtype(wide)?;
        let weights = Tensor::from_vec(
            (0..n * 12).map(|i| f64::from(i % 5)).collect(),
            (n as usize, 3, 2, 2),
            &Device::Cpu,
        )?;
        let loss = |rows: Range<usize>| -> Result<Tensor> {
            let part = |of: &Tensor| of.narrow(0, rows.start, rows.len());
            let x = part(&x)?;
            let w = convolution(&x, 3, (1, 1)).call()?;
            let stat = BatchStat::default();
            let y = match ranks {
                Some(_) => sync_batch_normalization(&w).output_stat(&stat).call()?,
                None => batch_normalization(&w).output_stat(&stat).call()?,
            };
            let of_statistics = (stat.mean()?.sqr()?.sum_all()? + stat.var()?.sqr()?.sum_all()?)?;
            let of_output = (y * part(&weights)?)?.tanh()?.mean_all()?;
            Ok((of_output + of_statistics * 0.01)?)
        };
        let loss = |rows: Range<usize>| match composed {
            true => layerfn::__private::composed(|| loss(rows)),
            false => loss(rows),
        };
        let store = ParameterStore::with_seed(3);
        let gradients = store.enter(|| match ranks {
            None => backward(loss(0..n as usize)?),
            Some(_) => {
                // The parameters are made by a call.
                communicator.enter(|| loss(0..n as usize)).map(drop)?;
                store.get("bn/mean").unwrap().var().set(&Tensor::zeros((1, 3, 1, 1), wide, &Device::Cpu)?)?;
                store.get("bn/var").unwrap().var().set(&Tensor::ones((1, 3, 1, 1), wide, &Device::Cpu)?)?;
                Ok(DataParallel::new(&communicator, &store, 4)?.step_together(n as usize, loss)?.gradients)
            }
        })?;
        let mut found = Vec::new();
        for (path, parameter) in store.parameters().iter() {
            let tensor = match gradients.get(parameter.var()) {
                Some(gradient) => gradient.clone(),
                None => parameter.var().as_detached_tensor(),
            };
            found.push((path.to_owned(), values(&tensor)?));
        }
        Ok(found)
    };
    let mut found = Local::new(ranks.unwrap_or(1)).run(run)?;
    assert!(found.iter().all(|of_rank| *of_rank == found[0]), "the ranks differ");
    Ok(found.swap_remove(0))
}

#[test]
fn statistics_over_all_ranks_have_the_gradients_of_the_whole_batch() -> Result<()> {
    for composed in [false, true] {
        let whole = of_statistics(None, composed)?;
        assert_eq!(whole.len(), 6);
        let one = of_statistics(Some(1), composed)?;
        for ((path, wanted), (other, found)) in whole.iter().zip(&one) {
            assert_eq!(path, other);
            let size = wanted.iter().fold(1.0, |size: f64, value| size.max(value.abs()));
            for (wanted, found) in wanted.iter().zip(found) {
                assert!((wanted - found).abs() < 1e-9 * size, "{path}: {found}, not {wanted}");
            }
        }
        if !composed {
            for ranks in [2, 3, 4] {
                assert!(of_statistics(Some(ranks), composed)? == one, "{ranks} ranks");
            }
        }
    }
    Ok(())
}

#[test]
fn statistics_over_all_ranks_are_refused_where_they_cannot_be() {
    let run = |n_micro: usize, ranks: usize| {
        Local::new(ranks).run(move |communicator| {
            let model = network! { affine(4) -> sync: sync_batch_normalization }.init((1, 3))?;
            let x = Tensor::arange(0f32, 24., &Device::Cpu)?.reshape((8, 3))?;
            let mut parallel = DataParallel::new(&communicator, model.store(), n_micro)?;
            parallel.step(8, |rows| {
                Ok(model.forward(&x.narrow(0, rows.start, rows.len())?)?.sqr()?.mean_all()?)
            })?;
            Ok(())
        })
    };
    for ranks in [1, 2] {
        assert_eq!(
            run(4, ranks).unwrap_err().to_string(),
            "sync/bn: sync_batch_normalization: `step` must be `step_together` for layers with statistics of all micro-batches, \
             which does not run one after the other, got \"4 micro-batches\""
        );
    }
    assert!(run(1, 1).is_ok());
}

/// What becomes of a step on two ranks in which micro-batch 3 does something else.
fn odd_one(odd: fn(&Tensor) -> Result<Tensor>) -> String {
    let begun = Instant::now();
    let run = Local::new(2).time_limit(Duration::from_secs(5)).run(move |communicator| {
        let store = ParameterStore::new();
        let x = Tensor::arange(0f32, 24., &Device::Cpu)?.reshape((8, 3))?;
        let mut parallel = DataParallel::new(&communicator, &store, 4)?;
        store.enter(|| {
            parallel.step_together(8, |rows| {
                let x = sync_batch_normalization(&x.narrow(0, rows.start, 2)?).call()?;
                Ok(if rows.start == 6 { odd(&x)? } else { sync_batch_normalization(&x).name("b").call()? }
                    .mean_all()?)
            })
        })?;
        Ok(())
    });
    assert!(begun.elapsed() < Duration::from_secs(4), "it hangs");
    run.unwrap_err().to_string()
}

#[test]
fn micro_batches_of_different_layers_are_an_error() {
    let unlike = "normalizes something else at this place";
    for odd in [(|x| Ok(x.clone())) as fn(&Tensor) -> Result<Tensor>, |x| {
        sync_batch_normalization(&x.reshape((1, 1, 6))?).axes(2).name("c").call()
    }] {
        let error = odd_one(odd);
        assert!(error.contains(unlike), "{error}");
    }
    let error = odd_one(|_| Err(layerfn::Error::invalid("x", "must be another one", "this")));
    assert_eq!(error, "`x` must be another one, got \"this\"");
    assert_eq!(odd_one(|_| panic!("no more")), "rank 1 panicked: no more");
}

#[test]
fn a_communicator_in_the_context_is_that_of_the_statistics() -> Result<()> {
    let found = Local::new(3).run(|communicator| {
        let rank = communicator.rank();
        let x = Tensor::from_vec(vec![rank as f64; 2 * (rank + 1)], (2 * (rank + 1), 1), &Device::Cpu)?;
        communicator.enter(|| sync_batch_normalization(&x).eps(0.0).call())?;
        // Elsewhere a rank is alone.
        let y = sync_batch_normalization(&x).eps(1.0).name("alone").call()?;
        assert!(values(&y)?.iter().all(|value| *value == 0.0));
        let store = ParameterStore::current();
        let value = |name: &str| values(&store.get(name).unwrap().var().as_detached_tensor());
        Ok([value("bn/mean")?[0], value("bn/var")?[0]])
    })?;
    // 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2
    let (mean, var) = (16.0 / 12.0, 28.0 / 12.0 - (16.0f64 / 12.0).powi(2));
    for [running_mean, running_var] in found {
        assert!((running_mean - 0.1 * mean).abs() < 1e-12);
        assert!((running_var - 0.9 - 0.1 * var * 12.0 / 11.0).abs() < 1e-12);
    }
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
