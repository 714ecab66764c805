//! Which examples come when, and what augmentation makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use layerfn::data::{Arrays, Augment, Batch, Dataset, Loader, Position, Subset};
use layerfn::prelude::*;

/// Examples that are their own numbers, and an image each.
fn numbers(n: usize) -> Arrays {
    let ids = Tensor::arange(0u32, n as u32, &Device::Cpu).unwrap();
    let images = (Tensor::arange(0f32, (n * 2 * 36) as f32, &Device::Cpu).unwrap() / 100.0).unwrap();
    Arrays::new([ids, images.reshape((n, 2, 6, 6)).unwrap()]).unwrap()
}

fn ids(batch: &Batch) -> Vec<u32> {
    let [ids, _] = batch.fields().unwrap();
    ids.to_vec1().unwrap()
}

fn images(batch: &Batch) -> Vec<f32> {
    let [_, images] = batch.fields().unwrap();
    images.flatten_all().unwrap().to_vec1().unwrap()
}

fn all(loader: &Loader) -> Vec<Batch> {
    loader.batches().unwrap().collect::<Result<_>>().unwrap()
}

fn all_ids(loader: &Loader) -> Vec<Vec<u32>> {
    all(loader).iter().map(ids).collect()
}

fn augmented(n: usize) -> Loader {
    let changes =
        Augment::new().rotate(20.0).scale(0.2).shift(1).flip_horizontal().flip_vertical().crop(5, 4);
    let changes = changes.brightness(0.1).contrast(0.2).noise(0.05).cutout(2);
    Loader::new(numbers(n), 4).shuffle(7).epochs(3).augment(1, changes)
}

#[test]
fn examples_come_in_order_and_the_last_batch_is_smaller() {
    let loader = Loader::new(numbers(7), 3);
    assert_eq!(all_ids(&loader), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    assert_eq!(loader.per_epoch(), 3);
    assert_eq!(all(&loader).iter().map(Batch::ends_epoch).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(all_ids(&Loader::new(numbers(7), 3).drop_last()), [[0, 1, 2], [3, 4, 5]]);
    assert_eq!(all(&Loader::new(numbers(6), 3).drop_last().epochs(2)).len(), 4);
    assert!(all(&Loader::new(numbers(7), 3).epochs(0)).is_empty());
}

#[test]
fn each_epoch_has_every_example_once_in_an_order_of_its_own() {
    let epochs: Vec<Vec<u32>> =
        all_ids(&Loader::new(numbers(50), 8).shuffle(3).epochs(3)).chunks(7).map(<[_]>::concat).collect();
    for epoch in &epochs {
        let mut sorted = epoch.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
    assert_ne!(epochs[0], epochs[1]);
    assert_ne!(epochs[1], epochs[2]);
    let again = all_ids(&Loader::new(numbers(50), 8).shuffle(3)).concat();
    assert_eq!(again, epochs[0]);
    assert_ne!(all_ids(&Loader::new(numbers(50), 8).shuffle(4)).concat(), epochs[0]);
}

#[test]
fn batches_are_the_same_for_any_number_of_workers() {
    let alone = all(&augmented(19));
    assert_eq!(alone.len(), 15);
    for workers in [1, 2, 3, 20] {
        let together = all(&augmented(19).workers(workers));
        assert_eq!(together.len(), alone.len(), "{workers} workers");
        for (a, b) in alone.iter().zip(&together) {
            assert_eq!((ids(a), a.position(), a.ends_epoch()), (ids(b), b.position(), b.ends_epoch()));
            assert_eq!(images(a), images(b), "{workers} workers");
        }
    }
    let epochs: Vec<f32> = alone.chunks(5).map(|epoch| images(&epoch[0])[3]).collect();
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2], "augmentation is drawn anew");
}

#[test]
fn a_position_goes_on_with_the_batches_that_would_have_come() {
    let whole = all(&augmented(19));
    for taken in [0, 1, 4, 5, 9, 15] {
        for workers in [0, 2] {
            let loader = augmented(19).workers(workers);
            let mut batches = loader.batches().unwrap();
            batches.by_ref().take(taken).for_each(|batch| drop(batch.unwrap()));
            let rest = all(&augmented(19).workers(workers).start_at(batches.position()));
            assert_eq!(rest.len(), whole.len() - taken);
            for (a, b) in whole[taken..].iter().zip(&rest) {
                assert_eq!((ids(a), images(a)), (ids(b), images(b)), "after {taken}, {workers} workers");
            }
        }
    }
    let end = Position { epoch: 0, batch: 5 };
    let next = augmented(19).start_at(end).batches().unwrap().position();
    assert_eq!(next, Position { epoch: 1, batch: 0 });
    let error = augmented(19).start_at(Position { epoch: 0, batch: 6 }).batches().unwrap_err().to_string();
    assert!(
        error.contains("`position` must be one of this data, which has 5 batches in an epoch"),
        "{error}"
    );
}

#[test]
fn the_parts_of_all_ranks_are_the_batch_of_one_process() {
    let whole = all(&augmented(19));
    for size in [1, 2, 3, 5] {
        let parts: Vec<Vec<Batch>> = (0..size).map(|rank| all(&augmented(19).shard(rank, size))).collect();
        for (n, batch) in whole.iter().enumerate() {
            let of_ranks: Vec<u32> = parts.iter().flat_map(|part| ids(&part[n])).collect();
            let values: Vec<f32> = parts.iter().flat_map(|part| images(&part[n])).collect();
            assert_eq!((of_ranks, values), (ids(batch), images(batch)), "{size} ranks");
        }
    }
    let error = augmented(19).shard(2, 2).batches().unwrap_err().to_string();
    assert_eq!(error, "`rank` must be below the number of processes, 2, got 2");
}

#[test]
fn augmentation_stays_within_its_limits() {
    let image = Tensor::zeros((40, 1, 9, 9), DType::F32, &Device::Cpu).unwrap();
    let mut values = image.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.chunks_mut(81).for_each(|image| image[40] = 1.0);
    let image = Tensor::from_vec(values, (40, 1, 9, 9), &Device::Cpu).unwrap();
    let of = |augment: Augment| -> Vec<Vec<f32>> {
        let loader = Loader::new(Arrays::new([image.clone()]).unwrap(), 40).shuffle(1).augment(0, augment);
        let batch = loader.batches().unwrap().next().unwrap().unwrap();
        let [images] = batch.fields().unwrap();
        images.flatten_from(1).unwrap().to_vec2().unwrap()
    };
    let mut places = BTreeMap::new();
    for image in of(Augment::new().shift(2)) {
        let place = image.iter().position(|&x| x == 1.0).unwrap();
        assert_eq!(image.iter().sum::<f32>(), 1.0);
        let (row, column) = (place / 9, place % 9);
        assert!((2..=6).contains(&row) && (2..=6).contains(&column));
        *places.entry(place).or_insert(0) += 1;
    }
    assert!(places.len() > 12, "{places:?}");
    for image in of(Augment::new().brightness(0.5)) {
        assert!((image[40] - image[0] - 1.0).abs() < 1e-6 && image[0].abs() <= 0.5);
    }
    for image in of(Augment::new().contrast(0.5)) {
        let spread = image[40] - image[0];
        assert!((0.499..=1.501).contains(&spread) && (image.iter().sum::<f32>() - 1.0).abs() < 1e-4);
    }
    // The center stays where it is, whatever the angle and the factor are.
    for image in of(Augment::new().rotate(180.0).scale(1.0)) {
        assert!((image[40] - 1.0).abs() < 1e-5);
    }
    let unchanged = of(Augment::new());
    assert_eq!(unchanged.concat(), image.flatten_all().unwrap().to_vec1::<f32>().unwrap());
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let text = |loader: Loader| match loader.batches() {
        Err(error) => error.to_string(),
        Ok(mut batches) => batches.next().unwrap().unwrap_err().to_string(),
    };
    let with = |augment: Augment| text(Loader::new(numbers(3), 2).augment(1, augment));
    assert_eq!(text(Loader::new(numbers(3), 0)), "`batch_size` must be at least 1, got 0");
    assert!(text(Loader::new(numbers(3), 4).drop_last()).contains("enough examples for a batch of 4"));
    assert!(with(Augment::new().rotate(f64::NAN)).contains("`degrees` must be in [0, 180]"));
    assert!(with(Augment::new().noise(-1.0)).contains("`noise` must be at least 0"));
    assert!(with(Augment::new().crop(7, 6)).contains("`crop` must fit into images of 6 × 6"));
    assert!(with(Augment::new().crop(0, 6)).contains("`crop` must be at least 1 × 1"));
    assert!(text(Loader::new(numbers(3), 2).augment(0, Augment::new())).contains("`images` must be (batch"));
    assert!(text(Loader::new(numbers(3), 2).augment(2, Augment::new())).contains("`field` must be below 2"));
    let batch = Loader::new(numbers(3), 2).batches().unwrap().next().unwrap().unwrap();
    assert_eq!(
        batch.fields::<3>().unwrap_err().to_string(),
        "`fields` of this data are 2, got \"a pattern of 3\""
    );
    let (x, y) =
        (Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap(), Tensor::zeros(2, DType::F32, &Device::Cpu));
    assert!(Arrays::new([x, y.unwrap()]).unwrap_err().to_string().contains("first axes have one size"));
    assert!(Subset::new(numbers(3), [0, 3]).is_err());
}

/// Fails, or panics, at one example.
struct Broken {
    panics: bool,
}

impl Dataset for Broken {
    fn len(&self) -> usize {
        10
    }

    fn example(&self, index: usize) -> Result<Vec<Tensor>> {
        if index == 5 {
            assert!(!self.panics, "planted");
            return Err(Error::invalid("index", "must not be this one", index));
        }
        Ok(vec![Tensor::new(index as u32, &Device::Cpu)?])
    }
}

#[test]
fn errors_and_panics_of_a_dataset_reach_the_caller() {
    for workers in [0, 2] {
        let results: Vec<_> =
            Loader::new(Broken { panics: false }, 2).workers(workers).batches().unwrap().collect();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true, true]);
    }
    let results: Vec<_> = Loader::new(Broken { panics: true }, 2).workers(2).batches().unwrap().collect();
    assert!(results[2].as_ref().unwrap_err().to_string().contains("`dataset` must not panic"));
    // Batches that nobody takes any more stop their threads.
    drop(Loader::new(Arc::new(numbers(100)), 1).endless().workers(3).batches().unwrap());
}

#[test]
fn changes_of_whole_batches_have_their_own_generator() {
    let loader = Loader::new(numbers(8), 4).shuffle(5).epochs(2).map(|mut fields, rng| {
        fields[1] = (&fields[1] * 0.0)?.affine(1.0, rng.uniform())?;
        Ok(fields)
    });
    let drawn: Vec<f32> = all(&loader).iter().map(|batch| images(batch)[0]).collect();
    assert_eq!(drawn.len(), 4);
    assert!((1..4).all(|n| drawn[n] != drawn[n - 1]));
    assert_eq!(drawn, all(&loader.workers(2)).iter().map(|batch| images(batch)[0]).collect::<Vec<_>>());
}
