use std::sync::Arc;

use candle_core::{Module, ModuleT, Tensor};
use layerfn::{Network, NetworkT, ParameterStore, Result, is_training, network, parameter_scope, test_mode};

use super::layers::{dense, failing, relu, scaling, times};
use super::{error_of, input, paths_of, values};

#[test]
fn forward_equals_the_calls_by_hand() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = input(3)?;
        let net = network! { < fc1: dense(5) -> relu -> scaling -> fc2: dense(2, with_bias = false) > };
        let by_net = net.forward(&x)?;

        let h = dense(&x, 5).name("fc1").call()?;
        let h = scaling(&relu(&h)?).call()?;
        let by_hand = dense(&h, 2).with_bias(false).name("fc2").call()?;
        assert_eq!(values(&by_net)?, values(&by_hand)?);
        assert_eq!(values(&net(&x)?)?, values(&by_hand)?);
        Ok(())
    })
}

#[test]
fn functions_closures_and_captured_values_are_stages() -> Result<()> {
    let x = input(2)?;
    let factor = 3.0;
    let twice = |x: &Tensor| x * 2.0;
    let net = network! {
        times(factor) -> twice -> (|x: &Tensor| x + 1.0) -> (|x| x.relu()) -> (move |x| times(x, factor))
    };
    assert_eq!(values(&net.forward(&x)?)?, [3.0, 21.0, 39.0, 57.0]);
    Ok(())
}

#[test]
fn a_network_outlives_the_function_that_made_it() -> Result<()> {
    fn scaled(factor: f64) -> Network<impl Fn(&Tensor) -> Result<Tensor>> {
        network!(move < times(factor) -> relu >)
    }
    fn braced(factor: f64) -> Network<impl Fn(&Tensor) -> Result<Tensor>> {
        network! { move { times(factor) -> relu } }
    }
    assert_eq!(values(&scaled(2.0).forward(&input(1)?)?)?, [0.0, 2.0]);
    assert_eq!(values(&braced(2.0).forward(&input(1)?)?)?, [0.0, 2.0]);
    Ok(())
}

#[test]
fn networks_are_stages_of_networks() -> Result<()> {
    struct Model {
        body: Network,
        factor: f64,
    }
    impl Model {
        fn scale(&self, x: &Tensor, offset: f64) -> candle_core::Result<Tensor> {
            (x * self.factor)? + offset
        }

        fn run(&self, x: &Tensor) -> Result<Tensor> {
            network! { first: self.body -> self.scale(1.0) -> second: self.body }.forward(x)
        }
    }
    let paths = paths_of(|| {
        let model = Model { body: network! { dense(2) -> relu }.boxed(), factor: 2.0 };
        model.run(&input(2)?)?;
        Ok(())
    })?;
    assert_eq!(paths, ["first/dense/W", "first/dense/b", "second/dense/W", "second/dense/b"]);
    Ok(())
}

#[test]
fn candle_takes_a_network_as_a_module() -> Result<()> {
    fn mode(x: &Tensor) -> candle_core::Result<Tensor> {
        x.affine(0.0, f64::from(u8::from(is_training())))
    }
    let x = input(1)?;
    let net = network! { mode };
    assert_eq!(values(&x.apply(&net)?)?, [1.0, 1.0]);
    assert_eq!(values(&test_mode(|| x.apply(&net))?)?, [0.0, 0.0]);
    assert_eq!(values(&test_mode(|| net.forward_t(&x, true))?)?, [1.0, 1.0]);

    let module: &dyn Module = &net;
    assert_eq!(values(&module.forward(&x)?)?, [1.0, 1.0]);
    let net: NetworkT<_> = net.module_t();
    let module: &dyn ModuleT = &net;
    assert_eq!(values(&module.forward_t(&x, false)?)?, [0.0, 0.0]);
    assert_eq!(values(&module.forward_t(&x, true)?)?, [1.0, 1.0]);
    Ok(())
}

#[test]
fn many_threads_run_one_network() -> Result<()> {
    let store = ParameterStore::new();
    let net: Arc<Network> = Arc::new(network! { dense(4) -> relu -> dense(2) }.boxed());
    let expected = store.enter(|| net.forward(&input(3)?))?;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (store, net) = (store.clone(), Arc::clone(&net));
            std::thread::spawn(move || store.enter(|| values(&net.forward(&input(3)?)?)))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic")?, values(&expected)?);
    }
    assert_eq!(store.parameters().len(), 4);
    Ok(())
}

#[test]
fn errors_say_where() {
    let net = network! { body: { relu -> c1: dense(3) -> (|x: &Tensor| x.flatten_all()) -> c2: dense(2) } };
    let error = error_of(|| parameter_scope("net", || net.forward(&input(2)?)));
    assert_eq!(error, "net/body/c2/dense: dense: `inp` must have two axes, got [6]");
    let net = network! { relu -> failing -> failing };
    assert_eq!(error_of(|| net.forward(&input(2)?)), "failing: failing: `x` is never right, got 1");
    let net = network! { < inner: { relu -> odd: failing } > };
    assert_eq!(error_of(|| net.forward(&input(2)?)), "inner/odd: failing: `x` is never right, got 1");
}

#[test]
fn an_error_and_a_panic_leave_the_scope_as_it_was() -> Result<()> {
    let net = network! { a: { b: failing } };
    let panicking =
        network! { a: { b: { dense(2) -> c: (|_: &Tensor| -> Result<Tensor> { panic!("on purpose") }) } } };
    let paths = paths_of(|| {
        let x = input(2)?;
        assert!(net.forward(&x).is_err());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panicking.forward(&x)));
        assert!(result.is_err());
        network! { dense(1) -> dense(1) }.forward(&x)?;
        Ok(())
    })?;
    assert_eq!(
        paths,
        ["a/b/dense/W", "a/b/dense/b", "dense/W", "dense/b", "dense_2/dense/W", "dense_2/dense/b"]
    );
    Ok(())
}
