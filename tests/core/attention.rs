//! Attention and Transformers beyond the fixtures: weights on request, masks, dropout, what is frozen.

use candle_core::{DType, Device, Tensor};
use layerfn::prelude::*;
use layerfn::{AttentionWeights, functions};
use layerfn_tests::{assert_close, both_paths, flat, values};

fn sequences() -> [Tensor; 3] {
    [values([3, 2, 6], 1), values([4, 2, 5], 2), values([4, 2, 8], 3)]
}

#[test]
fn asking_for_the_weights_changes_nothing() {
    let [query, key, value] = sequences();
    let mask = values([3, 4], 4);
    let padding = Tensor::new(&[[0u8, 1, 0, 0], [0, 0, 0, 1]], &Device::Cpu).unwrap();
    let attention = || {
        multi_head_attention(&query, &key, &value)
            .num_heads(2)
            .add_attn_bias(true)
            .additive_mask(&mask)
            .key_padding_mask(&padding)
    };
    both_paths(|| {
        ParameterStore::new().enter(|| {
            let plain = attention().call().unwrap();
            let weights = AttentionWeights::default();
            let error = weights.weights().unwrap_err().to_string();
            assert!(error.starts_with("`output_weights` must be given to a call first"), "{error}");
            let y = attention().output_weights(&weights).call().unwrap();
            assert_close(&y, &plain, 1e-12, "output beside the weights");
            let weights = weights.weights().unwrap();
            assert_eq!(weights.dims(), [4, 3, 5]);
            for (i, row) in flat(&weights).chunks(5).enumerate() {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{row:?}");
                // Two heads of three queries for each of the two samples.
                assert_eq!(row[if i < 6 { 1 } else { 3 }], 0.0, "a hidden key");
            }
        });
    });
}

#[test]
fn weights_are_dropped_in_training_only() {
    let [query, key, value] = sequences();
    ParameterStore::new().enter(|| {
        let run = |dropout: f64| {
            let weights = AttentionWeights::default();
            let layer = multi_head_attention(&query, &key, &value).num_heads(2).dropout(dropout);
            let y = layer.output_weights(&weights).call().unwrap();
            (y, flat(&weights.weights().unwrap()))
        };
        let (y, whole) = run(0.0);
        let (_, dropped) = run(0.5);
        assert!(dropped.contains(&0.0));
        for (dropped, whole) in dropped.iter().zip(&whole) {
            assert!(*dropped == 0.0 || (dropped - 2.0 * whole).abs() < 1e-12);
        }
        let (tested, weights) = test_mode(|| run(0.5));
        assert_eq!(flat(&tested), flat(&y));
        assert_eq!(weights, whole);
    });
}

/// NNabla computes 0 / 0 there.
#[test]
fn a_sample_without_keys_gets_the_bias_of_the_output() {
    let [query, key, value] = sequences();
    let padding = Tensor::new(&[[1u8, 1, 1, 1], [0, 0, 0, 0]], &Device::Cpu).unwrap();
    both_paths(|| {
        ParameterStore::new().enter(|| {
            let layer = multi_head_attention(&query, &key, &value).num_heads(2).out_bias_init(0.5);
            let y = layer.key_padding_mask(&padding).call().unwrap();
            assert!(flat(&y.get_on_dim(1, 0).unwrap()).iter().all(|&y| y == 0.5));
            assert!(flat(&y.get_on_dim(1, 1).unwrap()).iter().all(|&y| y.is_finite() && y != 0.5));
        });
    });
}

#[test]
fn what_does_not_fit_is_refused_before_a_parameter_is_made() {
    let [query, key, value] = sequences();
    let message = |layer: layerfn::MultiHeadAttention| {
        let store = ParameterStore::new();
        let error = store.enter(|| layer.call()).unwrap_err();
        assert!(store.parameters().is_empty());
        error.root().to_string()
    };
    let attention = || multi_head_attention(&query, &key, &value).num_heads(2);
    assert_eq!(
        message(attention().num_heads(4)),
        "`k_embed_dim` must be a multiple of `num_heads`, 4, both above 0, got 6"
    );
    assert_eq!(
        message(attention().num_heads(0)),
        "`k_embed_dim` must be a multiple of `num_heads`, 0, both above 0, got 6"
    );
    assert_eq!(
        message(attention().v_embed_dim(5)),
        "`v_embed_dim` must be a multiple of `num_heads`, 2, both above 0, got 5"
    );
    assert_eq!(
        message(attention().additive_mask(&values([4, 3], 1))),
        "`additive_mask` must have the shape (targets, sources) = (3, 4), or (batch, num_heads) in front of it, got [4, 3]"
    );
    assert_eq!(
        message(attention().key_padding_mask(&values([4, 2], 1))),
        "`key_padding_mask` must have the shape (batch, sources) = (2, 4), got [4, 2]"
    );
    assert!(message(attention().dropout(1.0)).starts_with("`dropout` must be in [0, 1)"));
    assert_eq!(
        message(multi_head_attention(&query, &values([4, 3, 6], 1), &value)),
        "`key` must have the batch of the queries, 2, got [4, 3, 6]"
    );
    assert_eq!(
        message(multi_head_attention(&query, &key, &values([5, 2, 6], 1))),
        "`value` must have the positions and the batch of the keys, [4, 2], got [5, 2, 6]"
    );
    let single = key.to_dtype(DType::F32).unwrap();
    assert_eq!(
        message(multi_head_attention(&query, &single, &value)),
        "`key` must have the element type of `query`, F64, got F32"
    );
    let x = values([4, 2, 6], 1);
    let store = ParameterStore::new();
    let error = store.enter(|| transformer_encode(&x, 8, 2).call()).unwrap_err();
    assert_eq!(
        error.root().to_string(),
        "`src` must have the shape (positions, batch, embed_dim = 8), got [4, 2, 6]"
    );
    let error = store.enter(|| transformer_decode(&x, &values([4, 3, 6], 1), 6, 2).call()).unwrap_err();
    assert_eq!(error.root().to_string(), "`key` must have the batch of the queries, 2, got [4, 3, 6]");
    assert!(store.parameters().is_empty(), "the first attention had made its parameters");
}

/// Paths of the parameters that get a gradient.
fn trained(store: &ParameterStore, y: &Tensor) -> Vec<String> {
    let gradients = backward(y.sqr().unwrap().sum_all().unwrap()).unwrap();
    let parameters = store.parameters();
    let reached = parameters.iter().filter(|(_, parameter)| gradients.get(parameter.var()).is_some());
    reached.map(|(path, _)| path.to_owned()).collect()
}

/// As NNabla, which does not hand it down; all that stands around a layer does freeze it.
#[test]
fn a_transformer_is_frozen_from_around_it_and_not_by_itself() {
    let x = values([4, 2, 6], 1);
    let layer = || transformer_encode(&x, 6, 2).dim_feedforward(5).dropout(0.0);
    let n_trained = |run: &dyn Fn() -> Tensor| {
        let store = ParameterStore::new();
        let y = store.enter(run);
        assert_eq!(store.parameters().len(), 16);
        if y.track_op() { trained(&store, &y).len() } else { 0 }
    };
    assert_eq!(n_trained(&|| layer().call().unwrap()), 16);
    assert_eq!(n_trained(&|| layer().fix_parameters(true).call().unwrap()), 16);
    assert_eq!(n_trained(&|| no_grad(|| layer().call().unwrap())), 0);
    let frozen = network! { frozen e: transformer_encode(6, 2, dim_feedforward = 5, dropout = 0.0) };
    assert_eq!(n_trained(&|| frozen.forward(&x).unwrap()), 0);
    let fixed =
        network! { transformer_encode(6, 2, dim_feedforward = 5, dropout = 0.0, fix_parameters = true) };
    assert_eq!(n_trained(&|| fixed.forward(&x).unwrap()), 0);
}

#[test]
fn a_generator_reaches_the_layers_inside() {
    let x = values([4, 2, 6], 1);
    let parameters = |seed: u64| {
        let store = ParameterStore::with_seed(seed);
        let rng = Rng::new(5);
        store.enter(|| {
            let layer = transformer(&x, &x).embed_dim(6).num_heads(2).dim_feedforward(5).rng(rng);
            layer.num_encoder_layers(1).num_decoder_layers(1).dropout(0.0).call().unwrap()
        });
        store.parameters().iter().flat_map(|(_, parameter)| flat(parameter.var())).collect::<Vec<_>>()
    };
    assert_eq!(parameters(1), parameters(2));
}

/// Relu is applied by the layer before it; any other function afterwards.
#[test]
fn activations_are_functions_and_closures() {
    let x = values([4, 2, 6], 1);
    let run = |activation: Option<layerfn::Activation>| {
        let layer = transformer_encode(&x, 6, 2).dim_feedforward(5).dropout(0.0);
        flat(
            &match activation {
                Some(activation) => layer.activation(activation),
                None => layer,
            }
            .call()
            .unwrap(),
        )
    };
    ParameterStore::new().enter(|| {
        let plain = run(None);
        assert_eq!(run(Some(functions::relu.into())), plain);
        assert_eq!(run(Some((|x: &Tensor| functions::relu(x)).into())), plain);
        assert_ne!(run(Some(functions::gelu.into())), plain);
    });
}
