//! `frozen label: ..`: what is inside is not trained, does not move and runs as in a test.

use candle_core::{DType, Device, Tensor};
use layerfn::{
    ParameterStore, Result, affine, backward, bn, get_all_parameters, get_parameters, is_training, network,
};

use super::layers::{failing, relu};
use super::{noise, values};

network! {
    /// A part that is trained elsewhere.
    fn backbone(n: usize) < affine(n) -> bn -> affine(n) >
}

/// Every value in the store, by path.
fn all_values() -> Result<Vec<(String, Vec<f32>)>> {
    get_all_parameters().iter().map(|(path, p)| Ok((path.to_owned(), values(p.var())?))).collect()
}

/// Paths of the parameters to which gradients of the sum of `y` flow.
fn trained(y: &Tensor) -> Result<Vec<String>> {
    let gradients = backward(&y.sum_all()?)?;
    let parameters = get_parameters();
    let reached = parameters.iter().filter(|(_, parameter)| gradients.get(parameter.var()).is_some());
    Ok(reached.map(|(path, _)| path.to_owned()).collect())
}

#[test]
fn a_frozen_block_is_not_trained_and_does_not_move() -> Result<()> {
    let net = network! { first: affine(3) -> frozen features: { backbone(4) -> last: bn } -> head: { affine(2) -> bn } };
    ParameterStore::new().enter(|| {
        let x = noise(&[5, 3])?;
        net.forward_t(&x, true)?;
        let before = all_values()?;
        let y = net.forward_t(&x, true)?;
        let after = all_values()?;
        let moved: Vec<_> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .map(|(before, _)| before.0.as_str())
            .collect();
        assert_eq!(moved, ["head/bn/mean", "head/bn/var"]);
        let reached = trained(&y.sqr()?)?;
        assert!(reached.iter().any(|path| path == "first/affine/W"), "gradients flow through what is frozen");
        assert!(reached.iter().all(|path| !path.starts_with("features/")), "{reached:?}");
        assert!(reached.iter().any(|path| path == "head/affine/W"));
        Ok(())
    })
}

#[test]
fn batch_normalization_in_a_frozen_block_takes_the_running_statistics() -> Result<()> {
    let frozen = network! { frozen body: { affine(3) -> bn } };
    let free = network! { body: { affine(3) -> bn } };
    ParameterStore::new().enter(|| {
        let x = noise(&[6, 2])?;
        for _ in 0..3 {
            free.forward_t(&x, true)?;
        }
        let in_training = values(&free.forward_t(&x, true)?)?;
        let in_a_test = values(&free.forward_t(&x, false)?)?;
        assert_ne!(in_training, in_a_test);
        assert_eq!(values(&frozen.forward_t(&x, true)?)?, in_a_test);
        Ok(())
    })
}

#[test]
fn every_form_of_stage_can_be_frozen() -> Result<()> {
    let rows = [2, 2];
    let net = network! {
        frozen one: affine(2) -> frozen all: backbone(2)
        -> for (i, &n) in rows.iter().enumerate() { frozen row[i]: affine(n) }
        -> frozen join: residual { affine(2) } -> frozen choice: if true { affine(2) }
        -> frozen value: (|x: &Tensor| affine(x, 2).call())
        -> frozen fixed: affine(2, fix_parameters = true)
        -> add { frozen branch: affine(2), free: affine(2) }
        -> frozen shared tied: affine(2) -> shared frozen tied: affine(2)
        -> last: affine(2)
    };
    ParameterStore::new().enter(|| {
        let y = net.forward_t(&Tensor::ones((3, 2), DType::F32, &Device::Cpu)?, true)?;
        assert_eq!(trained(&y)?, ["free/affine/W", "free/affine/b", "last/affine/W", "last/affine/b"]);
        Ok(())
    })
}

#[test]
fn what_was_before_a_frozen_block_is_after_it() -> Result<()> {
    let training = |x: &Tensor| -> Result<Tensor> {
        assert!(is_training());
        Ok(x.clone())
    };
    let testing = |x: &Tensor| -> Result<Tensor> {
        assert!(!is_training());
        Ok(x.clone())
    };
    let net = network! {
        training -> frozen a: { testing -> frozen b: testing -> testing } -> frozen c: testing -> training
    };
    let stopped = network! { frozen a: { testing -> failing } };
    ParameterStore::new().enter(|| {
        let x = noise(&[2, 2])?;
        net.forward_t(&x, true)?;
        assert!(stopped.forward_t(&x, true).is_err());
        assert!(is_training());
        assert_eq!(trained(&affine(&x, 2).call()?)?, ["affine/W", "affine/b"]);
        Ok(())
    })
}

#[test]
fn reports_say_what_is_frozen() -> Result<()> {
    let net = network! {
        first: affine(2) -> frozen body: { dense: affine(3) -> bn -> relu } -> frozen one: affine(2, with_bias = false)
        -> last: affine(2)
    };
    ParameterStore::new().enter(|| {
        let x = noise(&[4, 2])?;
        let summary = net.summary([(4, 2)])?;
        let frozen: Vec<_> =
            summary.rows().iter().filter(|row| row.is_frozen()).map(|row| row.path.as_str()).collect();
        assert_eq!(frozen, ["body/dense/affine", "body/bn", "one/affine"]);
        let (body, one) = (2 * 3 + 3 + 4 * 3, 3 * 2);
        assert_eq!((summary.frozen_count(), summary.parameter_count()), (body + one, 2 * (2 * 2 + 2)));
        let text = summary.to_string();
        assert_eq!(
            text.lines().filter(|line| line.ends_with("│") && line.contains(" frozen ")).count(),
            3,
            "{text}"
        );
        assert!(text.contains("12 trained, 27 frozen, 39 in all"), "{text}");

        let picture = summary.to_mermaid();
        assert!(picture.contains("body (frozen)"), "{picture}");
        assert_eq!(picture.matches("parameters, frozen").count(), 3, "{picture}");

        let audit = net.gradient_audit(&x, |y| y.sqr()?.sum_all())?;
        assert_eq!(audit.to_string(), "all 4 trained parameters got a gradient; 7 more are frozen");

        // What the store holds frozen is frozen, too.
        ParameterStore::current().freeze("last/**")?;
        let summary = net.summary([(4, 2)])?;
        assert!(summary.rows().last().is_some_and(|row| row.is_frozen()));
        Ok(())
    })
}
