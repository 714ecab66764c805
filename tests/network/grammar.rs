use candle_core::{D, Tensor};
use layerfn::{ParameterStore, Result, backward, get_parameters, network};

use super::layers::{dense, relu, scaling, times};
use super::{error_of, input, paths_of, values};

#[test]
fn branches_are_joined() -> Result<()> {
    let x = input(1)?;
    let add = network! { add { times(2.0), _, times(3.0) -> times(2.0) } };
    assert_eq!(values(&add.forward(&x)?)?, [0.0, 9.0]);
    let mul = network! { mul { _, times(3.0) } };
    assert_eq!(values(&mul.forward(&x)?)?, [0.0, 3.0]);
    let gate = network! { mul { _, (|x: &Tensor| x.sum_keepdim(0)) } };
    assert_eq!(values(&gate.forward(&input(2)?)?)?, [0.0, 4.0, 4.0, 12.0]);
    let concat = network! { concat(1) { _, times(2.0), } };
    assert_eq!(values(&concat.forward(&x)?)?, [0.0, 0.0, 1.0, 2.0]);
    let residual = network! { residual { times(2.0) -> relu } -> times(10.0) };
    assert_eq!(values(&residual.forward(&x)?)?, [0.0, 30.0]);
    Ok(())
}

#[test]
fn joins_refuse_shapes_that_do_not_go_together() {
    let net = network! { body: { residual { (|x: &Tensor| x.sum_keepdim(1)) } } };
    assert_eq!(
        error_of(|| net.forward(&input(3)?)),
        "body/residual: residual: `branches` must have one shape to be added, got [[2, 3], [2, 1]]"
    );
    let net = network! { concat(0) { _, (|x: &Tensor| x.sum_keepdim(1)) } };
    assert_eq!(
        error_of(|| net.forward(&input(3)?)),
        "concat: concat: `branches` may differ in the joined axis only, got [[2, 3], [2, 1]]"
    );
    let net = network! { concat(2) { _, _ } };
    assert_eq!(
        error_of(|| net.forward(&input(3)?)),
        "concat: concat: `axis` must be below the rank 2 of the branches, got 2"
    );
}

#[test]
fn branches_share_the_names_of_their_block() -> Result<()> {
    let net = network! { add { dense(2), dense(2) -> dense(2) } -> side: add { dense(2), dense(2) } };
    let paths = paths_of(|| net.forward(&input(2)?).map(drop))?;
    let weights: Vec<_> = paths.iter().filter(|path| path.ends_with("/W")).collect();
    assert_eq!(
        weights,
        ["dense/W", "dense_2/dense/W", "dense_3/dense/W", "side/dense/W", "side/dense_2/dense/W"]
    );
    Ok(())
}

#[test]
fn conditions_choose() -> Result<()> {
    enum Act {
        Relu,
        Times(f64),
    }
    fn run(wide: bool, slope: Option<f64>, act: &Act) -> Result<Vec<f32>> {
        let net = network! {
            if wide { times(2.0) -> times(2.0) } else { _ }
            -> if let Some(slope) = slope { times(slope) }
            -> match act { Act::Relu => relu, Act::Times(factor) if *factor > 0.0 => { times(*factor) }, _ => _ }
        };
        values(&net.forward(&input(1)?)?)
    }
    assert_eq!(run(true, None, &Act::Relu)?, [0.0, 4.0]);
    assert_eq!(run(false, Some(-3.0), &Act::Relu)?, [0.0, 0.0]);
    assert_eq!(run(false, Some(-3.0), &Act::Times(2.0))?, [0.0, -6.0]);
    assert_eq!(run(false, None, &Act::Times(-2.0))?, [0.0, 1.0]);
    Ok(())
}

#[test]
fn loops_run_over_rust_iterators() -> Result<()> {
    let widths = [4, 3];
    let net = network! { for (i, &width) in widths.iter().enumerate() { fc[i + 1]: dense(width) -> relu } };
    let paths = paths_of(|| {
        assert_eq!(net.forward(&input(2)?)?.dims(), [2, 3]);
        Ok(())
    })?;
    assert_eq!(paths, ["fc1/dense/W", "fc1/dense/b", "fc2/dense/W", "fc2/dense/b"]);
    Ok(())
}

#[test]
fn several_inputs_and_outputs() -> Result<()> {
    let (x, y) = (input(2)?, input(2)?);
    let net =
        network! { |x, y| < times(2.0) as doubled -> add { _, use(y) } as sum -> use((sum, doubled, x)) > };
    let (sum, doubled, same) = net.forward(&x, &y)?;
    assert_eq!(values(&sum)?, [0.0, 3.0, 6.0, 9.0]);
    assert_eq!(values(&doubled)?, [0.0, 2.0, 4.0, 6.0]);
    assert_eq!(values(&same)?, values(&x)?);

    let heads = network! { times(2.0) -> tuple { main: dense(3), aux: dense(1) } };
    let (main, aux) = ParameterStore::new().enter(|| heads.boxed().forward(&x))?;
    assert_eq!((main.dims(), aux.dims()), (&[2, 3][..], &[2, 1][..]));

    let after = network! { tuple { _, times(2.0) } -> (|(a, b): &(Tensor, Tensor)| a + b) };
    assert_eq!(values(&after.forward(&x)?)?, [0.0, 3.0, 6.0, 9.0]);
    Ok(())
}

#[test]
fn a_network_has_up_to_eight_inputs() -> Result<()> {
    let net = network! { |a, b, c, d, e| < dense(2) -> concat(1) { _, use(b), use(c), use(d), use(e) } > };
    let x = input(1)?;
    ParameterStore::new().enter(|| -> Result<()> {
        assert_eq!(net.forward(&x, &x, &x, &x, &x)?.dims(), [2, 6]);
        let summary = net.summary([(2, 1), (2, 1), (2, 2), (2, 3), (2, 1)])?;
        assert_eq!(summary.rows().last().map(|row| row.outputs.clone()), Some(vec![vec![2, 9]]));
        Ok(())
    })?;
    let net = network! { |a, b, c, d, e, f, g, h| < add { _, use(b), use(g), use(h) } -> mul { _, use(c), use(d), use(e), use(f) } > };
    let y = net.boxed().forward(&x, &x, &x, &x, &x, &x, &x, &x)?;
    assert_eq!(values(&y)?, [0.0, 4.0]);
    Ok(())
}

network! {
    /// Two layers with names of their own.
    fn body(n: usize) < dense(n) -> relu -> dense(n) >
}

#[test]
fn every_stage_takes_a_name_and_fix_parameters() -> Result<()> {
    let fixed = true;
    let net = network! {
        body(2, name = "first", fix_parameters = fixed) -> body(2, name = String::from("a/b")) -> relu(name = "r")
        -> dense(2, fix_parameters = !fixed) -> c: dense(2, fix_parameters = fixed) -> scaling(name = "")
    };
    ParameterStore::new().enter(|| {
        let gradients = backward(&net.forward(&input(2)?)?.sum_all()?)?;
        let parameters = get_parameters();
        let weights: Vec<_> = parameters.iter().filter(|(path, _)| path.ends_with("/W")).collect();
        let (paths, trained): (Vec<_>, Vec<_>) =
            weights.iter().map(|(path, parameter)| (*path, gradients.get(parameter.var()).is_some())).unzip();
        assert_eq!(
            paths,
            [
                "first/dense/W",
                "first/dense_2/dense/W",
                "a/b/dense/W",
                "a/b/dense_2/dense/W",
                "dense/W",
                "c/dense/W"
            ]
        );
        assert_eq!(trained, [false, false, true, true, true, false]);
        assert!(parameters.get("scaling/s").is_some(), "an empty name is none");
        Ok(())
    })
}

#[test]
fn arguments_are_any_expression() -> Result<()> {
    fn with(x: &Tensor, f: impl Fn(f64, f64) -> f64, xs: &[f64]) -> candle_core::Result<Tensor> {
        x * f(xs[0], xs.iter().copied().sum::<f64>())
    }
    fn generic<A, B>(x: &Tensor, _: A, _: B) -> Result<Tensor> {
        Ok(x.clone())
    }
    let n = 3;
    let net = network! {
        with(|a, b| a + b, &[1.0, 2.0]) -> generic::<Option<u8>, fn(u8) -> u8>(None, |x| x) -> scaling
            -> dense(if n > 2 { n } else { 1 }, with_bias = [1, 2].iter().any(|&x| x == 2 || x > 4))
    };
    ParameterStore::new().enter(|| {
        assert_eq!(net.forward(&input(2)?)?.dims(), [2, 3]);
        Ok(())
    })
}

#[test]
fn arguments_may_fail() {
    fn width(x: &Tensor) -> Result<usize> {
        Ok(x.dim(D::Minus1)?)
    }
    let net = network! { |x| relu -> a: dense(width(&x.flatten_all()?)? - 2) -> dense(width(&Tensor::new(1f32, x.device())?)?) };
    assert!(error_of(|| net.forward(&input(2)?)).contains("dim"));
}

network! {
    /// A block of two layers.
    pub fn block(outmaps: usize, with_bias: bool)
    < residual { c1: dense(outmaps, with_bias = with_bias) -> relu -> c2: dense(outmaps) } -> relu >

    fn heads(n: usize) -> Result<(Tensor, Tensor)> |x, y| < dense(n) as main -> use((main, y)) -> (|h: &(Tensor, Tensor)| Ok::<_, layerfn::Error>(h.clone())) -> use((x, y)) >
}

#[test]
fn named_networks_are_functions_and_stages() -> Result<()> {
    let net = network! { b1: block(2, true) -> b2: block(2, false) };
    let paths = paths_of(|| {
        net.forward(&input(2)?)?;
        block(&input(2)?, 2, true)?;
        heads(&input(2)?, &input(3)?, 2)?;
        Ok(())
    })?;
    let weights: Vec<_> = paths.iter().filter(|path| path.ends_with("/W")).collect();
    assert_eq!(
        weights,
        [
            "b1/c1/dense/W",
            "b1/c2/dense/W",
            "b2/c1/dense/W",
            "b2/c2/dense/W",
            "c1/dense/W",
            "c2/dense/W",
            "dense/W"
        ]
    );
    Ok(())
}

fn last(values: &[f64]) -> Result<f64> {
    values.last().copied().ok_or(layerfn::Error::NoParameter { path: "nothing".to_owned(), nearest: None })
}

#[test]
fn a_long_chain_is_a_chain() -> Result<()> {
    let (factors, mut owned) = ([1.0], vec![2.0, 3.0]);
    let run = |owned: &Vec<f64>| {
        let net = network! {
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) ->
            times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> times(factors[0]) -> (|x:
            &Tensor| x + owned.len() as f64) -> times(-1.0) as negative -> times(1.0) -> times(1.0) ->
            times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) ->
            times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) ->
            times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) ->
            times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) ->
            times(1.0) -> times(1.0) -> times(1.0) -> times(1.0) -> add { _, use(negative) } ->
            times(last(owned)?)
        };
        net.forward(&input(1)?)
    };
    // (−(x + 2) − (x + 2)) · 3
    assert_eq!(values(&run(&owned)?)?, [-12.0, -18.0]);
    owned.clear();
    assert!(error_of(|| run(&owned)).contains("nothing"), "a `?` ends the whole network");
    Ok(())
}
