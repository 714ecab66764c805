use candle_core::{DType, Device, Tensor, Var};
use layerfn::{
    Network, Parameter, ParameterStore, Result, get_parameter_or_create, network, parameter_scope,
    set_parameter,
};

use super::layers::{dense, fully_connected, relu, scaling};
use super::{error_of, input, paths_of};

/// Paths of the weights of `net` on two features.
fn weights(net: &Network<impl Fn(&Tensor) -> Result<Tensor>>) -> Result<Vec<String>> {
    let paths = paths_of(|| net.forward(&input(2)?).map(drop))?;
    Ok(paths.into_iter().filter(|path| path.ends_with("/W")).collect())
}

#[test]
fn a_label_is_the_name() -> Result<()> {
    assert_eq!(weights(&network! { c1: dense(2) -> relu -> c2: dense(2) })?, ["c1/dense/W", "c2/dense/W"]);
    Ok(())
}

#[test]
fn unlabelled_stages_of_one_name_are_numbered() -> Result<()> {
    let net = network! { dense(2) -> dense(2) -> relu -> dense(2) };
    assert_eq!(weights(&net)?, ["dense/W", "dense_2/dense/W", "dense_3/dense/W"]);
    Ok(())
}

#[test]
fn appending_or_labelling_changes_no_path() -> Result<()> {
    let before = weights(&network! { dense(2) -> relu -> dense(2) })?;
    let appended = weights(&network! { dense(2) -> relu -> dense(2) -> scaling -> dense(2) })?;
    assert_eq!(appended[..2], before);
    let inserted = weights(&network! { dense(2) -> new: dense(2) -> relu -> named(2) -> dense(2) })?;
    fn named(x: &Tensor, n: usize) -> layerfn::Result<Tensor> {
        dense(x, n).name("other").call()
    }
    assert_eq!(inserted, ["dense/W", "new/dense/W", "other/dense/W", "dense_2/dense/W"]);
    let explicit = weights(&network! { dense(2) -> dense(2, name = "mine") -> dense(2) })?;
    assert_eq!(explicit, ["dense/W", "mine/dense/W", "dense_2/dense/W"]);
    Ok(())
}

#[test]
fn labelled_blocks_number_for_themselves() -> Result<()> {
    let net = network! { dense(2) -> a: { dense(2) -> dense(2) } -> { dense(2) } -> dense(2) };
    assert_eq!(
        weights(&net)?,
        ["dense/W", "a/dense/W", "a/dense_2/dense/W", "dense_2/dense/W", "dense_3/dense/W"]
    );
    Ok(())
}

#[test]
fn an_alias_does_not_share_by_accident() {
    let net = network! { dense(2) -> relu -> fully_connected(2) };
    let error = error_of(|| parameter_scope("net", || net.forward(&input(2)?)));
    let line = line!() - 2;
    let file = file!();
    assert_eq!(
        error,
        format!(
            "net/dense: dense: the stages at {file}:{line}:26 and {file}:{line}:46 both have the path `net/dense`; \
             label one of them, as in `label: ..`, or write `shared label: ..` at both to use the same parameters"
        )
    );
}

#[test]
fn shared_labels_share() -> Result<()> {
    let net = network! { shared tied: dense(2) -> relu -> shared tied: dense(2) };
    assert_eq!(weights(&net)?, ["tied/dense/W"]);
    Ok(())
}

#[test]
fn a_loop_takes_its_index_into_the_label() -> Result<()> {
    let net = network! { for i in 0..2 { block[i]: { dense(2) -> relu } } -> dense(1) };
    assert_eq!(weights(&net)?, ["block0/dense/W", "block1/dense/W", "dense/W"]);
    let error = error_of(|| network! { for _ in 0..2 { dense(2) } }.forward(&input(2)?));
    assert!(error.contains("runs again under the path `dense`; give its label an index"), "{error}");
    let tied = network! { for _ in 0..2 { shared step: { dense(2) -> relu } } };
    assert_eq!(weights(&tied)?, ["step/dense/W"]);
    Ok(())
}

#[test]
fn a_network_may_run_twice() -> Result<()> {
    let net = network! { dense(2) };
    let siamese = network! { (|x: &Tensor| net.forward(&net.forward(x)?)) -> (|x: &Tensor| net(x)) };
    let paths = paths_of(|| {
        net.forward(&input(2)?)?;
        net.forward(&input(2)?)?;
        Ok(())
    })?;
    assert_eq!(paths, ["dense/W", "dense/b"]);
    assert_eq!(weights(&siamese)?, ["dense/W"]);
    let twice = network! { net -> net };
    assert_eq!(weights(&twice)?, ["dense/W", "net_2/dense/W"]);
    Ok(())
}

#[test]
fn layers_without_a_scope_own_no_path() -> Result<()> {
    let net = network! { layerfn::dropout -> layerfn::dropout -> layerfn::dropout(p = 0.1) -> dense(2) };
    assert_eq!(weights(&net)?, ["dense/W"]);
    let net = network! { layerfn::dropout -> layerfn::max_pooling(1) };
    net.forward(&input(2)?.reshape((1, 1, 2, 2))?)?;
    let net = network! { body: { relu -> layerfn::max_pooling(3) } };
    let error = error_of(|| net.forward(&input(2)?));
    assert!(error.starts_with("body: max_pooling: "), "{error}");
    let net = network! { layerfn::max_pooling(3) };
    let error = error_of(|| net.forward(&input(2)?));
    assert!(error.starts_with("max_pooling: max_pooling: "), "{error}");
    Ok(())
}

#[test]
fn runs_do_not_disturb_each_other() -> Result<()> {
    let fine = network! { a: dense(2) -> relu -> b: dense(2) };
    let same_paths = network! { b: dense(2) -> a: dense(2) -> c: dense(2) };
    let twice = network! { a: dense(2) -> dense(2) -> relu -> fully_connected(2) };
    ParameterStore::new().enter(|| {
        for _ in 0..2 {
            fine.forward(&input(2)?)?;
            fine.forward(&input(2)?)?;
            let error = error_of(|| twice.forward(&input(2)?));
            assert!(error.contains("both have the path `dense`"), "{error}");
            same_paths.forward(&input(2)?)?;
        }
        Ok(())
    })
}

#[test]
fn a_name_that_cannot_be_saved_is_refused_when_it_is_used() -> Result<()> {
    let x = input(2)?;
    let up = "..";
    for error in [
        error_of(|| network! { relu -> dense(2, name = up) }.forward(&x)),
        error_of(|| network! { for part in ["a b/../c", "b"] { layer[part]: dense(2) } }.forward(&x)),
        error_of(|| dense(&x, 2).name("a\0b").call()),
        error_of(|| parameter_scope("./a", || dense(&x, 2).call())),
        error_of(|| get_parameter_or_create("a/../W").shape(2).call()),
        error_of(|| set_parameter("a/..", Parameter::new(Var::zeros(2, DType::F32, &Device::Cpu)?, true))),
    ] {
        assert!(error.contains("must give a path that can be saved; this one has a"), "{error}");
    }
    // These mean nothing to a file.
    let paths = paths_of(|| network! { dense(2, name = "a b/...") -> x: dense(2) }.forward(&x).map(drop))?;
    assert_eq!(paths[0], "a b/.../dense/W");
    Ok(())
}
