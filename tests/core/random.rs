//! Tensors from a generator: the numbers are those of `numpy.random.RandomState`.

use candle_core::{DType, Tensor};
use layerfn::Rng;

fn integers(x: &Tensor) -> Vec<i64> {
    x.to_dtype(DType::I64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn tensors_hold_the_numbers_of_numpy() {
    let rng = Rng::new(313);
    let uniform = rng.rand((2, 3)).unwrap();
    assert_eq!(uniform.dims(), [2, 3]);
    let want = [
        0.1655396242835081,
        0.5501043660221061,
        0.8608718021110578,
        0.617933723938994,
        0.9462463871139382,
        0.5608579715383613,
    ];
    assert_eq!(numbers(&uniform), want.map(|x: f64| x as f32));
    let normal = rng.randn((2, 2)).unwrap();
    let want = [-0.14723764736707634, 0.16610888500772578, 1.4289319375027676, -2.6127686725952124];
    assert_eq!(numbers(&normal), want.map(|x: f64| x as f32));
    assert_eq!(integers(&rng.permutation(10).unwrap()), [0, 2, 3, 1, 4, 5, 8, 6, 7, 9]);
    assert_eq!(integers(&rng.bernoulli(0.3, (2, 6)).unwrap()), [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(integers(&rng.bernoulli(0.8, (2, 6)).unwrap()), [1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1]);
    assert_eq!(integers(&rng.permutation(5).unwrap()), [1, 2, 4, 0, 3]);
    assert_eq!(rng.uniform(), 0.6475807303175349);
}

#[test]
fn certain_events_draw_as_many_numbers_as_in_numpy() {
    let rng = Rng::new(7);
    let order = [1, 17, 2, 5, 11, 0, 18, 6, 13, 19, 10, 14, 8, 16, 9, 12, 7, 3, 4, 15];
    assert_eq!(integers(&rng.permutation(20).unwrap()), order);
    let want = [
        -0.014968207048865785,
        0.021390674919650247,
        0.7487810756231902,
        -0.08313583236288215,
        0.07072914133141447,
    ];
    assert_eq!(numbers(&rng.randn(5).unwrap()), want.map(|x: f64| x as f32));
    assert_eq!(integers(&rng.bernoulli(0.5, 8).unwrap()), [1, 0, 1, 1, 0, 1, 1, 1]);
    assert_eq!(integers(&rng.bernoulli(1.0, 3).unwrap()), [1, 1, 1]);
    assert_eq!(integers(&rng.bernoulli(0.0, 3).unwrap()), [0, 0, 0]);
    assert_eq!(rng.uniform(), 0.8379179943092606);
}

#[test]
fn what_cannot_be_drawn_is_an_error_and_draws_nothing() {
    let rng = Rng::new(1);
    for p in [-0.1, 1.1, f64::NAN] {
        let error = rng.bernoulli(p, 3).unwrap_err().to_string();
        assert!(error.contains("`p` must be in [0, 1]"), "{error}");
    }
    assert!(rng.randn((usize::MAX, 2)).unwrap_err().to_string().contains("`dims`"));
    assert!(rng.rand((1 << 40, 1 << 10)).is_err());
    assert!(rng.permutation(usize::MAX).is_err());
    assert_eq!(rng.randn((0, 3)).unwrap().dims(), [0, 3]);
    assert_eq!(rng.permutation(0).unwrap().dims(), [0]);
    assert_eq!(rng.rand(()).unwrap().dims(), [0usize; 0]);
    let fresh = Rng::new(1);
    let _ = fresh.uniform();
    assert_eq!(rng.uniform(), fresh.uniform());
}
