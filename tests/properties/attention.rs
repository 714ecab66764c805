//! Attention against its definition, written as plainly as possible.

use candle_core::{Device, Tensor};
use layerfn::functions::scaled_dot_product_attention;
use layerfn_tests::{assert_close, flat, gradients, values};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Sizes {
    batches: usize,
    heads: usize,
    targets: usize,
    sources: usize,
    dim: usize,
    value_dim: usize,
    causal: bool,
    has_mask: bool,
    /// Of a hundred keys so many are hidden.
    hidden: u64,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    // Some are longer than a tile, with few heads.
    let lengths = prop_oneof![
        4 => (1..4usize, 1..4usize, 1..20usize, 1..20usize),
        1 => (1..2usize, 1..3usize, 100..300usize, 1..40usize),
        1 => (1..2usize, 1..3usize, 1..40usize, 200..600usize),
    ];
    (lengths, 1..9usize, 1..9usize, any::<bool>(), any::<bool>(), prop_oneof![Just(0), 0..70u64]).prop_map(
        |((batches, heads, targets, sources), dim, value_dim, causal, has_mask, hidden)| Sizes {
            batches,
            heads,
            targets,
            sources,
            dim,
            value_dim,
            causal,
            has_mask,
            hidden,
        },
    )
}

/// Outputs and the gradients of queries, keys, values and mask for the gradient `dy` of the outputs.
fn naive(s: &Sizes, [q, k, v, mask, dy]: [&[f64]; 5], hidden: &[bool]) -> [Vec<f64>; 5] {
    let scale = (s.dim as f64).sqrt().recip();
    let zeros = |len: usize| vec![0.0; len];
    let [mut y, mut dq, mut dk, mut dv, mut dmask] = [dy, q, k, v, mask].map(|x| zeros(x.len()));
    for pair in 0..s.batches * s.heads {
        let key = |j: usize| (pair * s.sources + j) * s.dim;
        let value = |j: usize| (pair * s.sources + j) * s.value_dim;
        for i in 0..s.targets {
            let (query, output) = ((pair * s.targets + i) * s.dim, (pair * s.targets + i) * s.value_dim);
            let is_seen = |j: usize| {
                !hidden[pair / s.heads * s.sources + j] && (!s.causal || j + s.targets <= i + s.sources)
            };
            let seen: Vec<usize> = (0..s.sources).filter(|&j| is_seen(j)).collect();
            let score = |j: usize| {
                let product: f64 = (0..s.dim).map(|d| q[query + d] * k[key(j) + d]).sum();
                product * scale + if s.has_mask { mask[i * s.sources + j] } else { 0.0 }
            };
            let largest = seen.iter().map(|&j| score(j)).fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = seen.iter().map(|&j| (score(j) - largest).exp()).collect();
            let total: f64 = powers.iter().sum();
            let weights: Vec<f64> = powers.iter().map(|power| power / total).collect();
            let slope =
                |j: usize| -> f64 { (0..s.value_dim).map(|d| dy[output + d] * v[value(j) + d]).sum() };
            let mean: f64 = seen.iter().zip(&weights).map(|(&j, weight)| weight * slope(j)).sum();
            for (&j, weight) in seen.iter().zip(&weights) {
                for d in 0..s.value_dim {
                    y[output + d] += weight * v[value(j) + d];
                    dv[value(j) + d] += weight * dy[output + d];
                }
                let dscore = weight * (slope(j) - mean);
                for d in 0..s.dim {
                    dq[query + d] += scale * dscore * k[key(j) + d];
                    dk[key(j) + d] += scale * dscore * q[query + d];
                }
                if s.has_mask {
                    dmask[i * s.sources + j] += dscore;
                }
            }
        }
    }
    [y, dq, dk, dv, dmask]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attention_is_its_definition(s in sizes()) {
        let tensor = |positions, dim, seed| (values([s.batches, s.heads, positions, dim], seed) * 3.0).unwrap();
        let (q, k, v) =
            (tensor(s.targets, s.dim, 1), tensor(s.sources, s.dim, 2), tensor(s.sources, s.value_dim, 3));
        let mask = values([s.targets, s.sources], 4);
        let dy = values([s.batches, s.heads, s.targets, s.value_dim], 5);
        let hidden: Vec<bool> = flat(&values([s.batches, s.sources], 6))
            .into_iter()
            .map(|x| (x + 1.0) * 50.0 < s.hidden as f64)
            .collect();
        let padding = Tensor::from_iter(hidden.iter().map(|&hidden| f64::from(u8::from(hidden))), &Device::Cpu);
        let padding = padding.unwrap().reshape((s.batches, s.sources)).unwrap();
        let attention = |t: &[Tensor]| {
            let mask = s.has_mask.then_some(&t[3]);
            scaled_dot_product_attention(&t[0], &t[1], &t[2], mask, Some(&padding), s.causal, None)
        };
        let inputs = [q, k, v, mask];
        let [a, b, c, d, e] = [&inputs[0], &inputs[1], &inputs[2], &inputs[3], &dy].map(flat);
        let want = naive(&s, [&a, &b, &c, &d, &e], &hidden);
        let check = |name: &str| {
            let y = attention(&inputs).unwrap();
            let tensor = |data: &Vec<f64>, like: &Tensor| {
                Tensor::from_vec(data.clone(), like.dims(), &Device::Cpu).unwrap()
            };
            assert_close(&y, &tensor(&want[0], &y), 1e-11, name);
            let got = gradients(attention, &inputs, &dy, |i| i < 3 || s.has_mask);
            for ((got, want), input) in got.iter().zip(&want[1..]).zip(&inputs) {
                if let Some(got) = got {
                    assert_close(got, &tensor(want, input), 1e-11, &format!("gradient of {name}"));
                }
            }
        };
        check("attention");
        layerfn::__private::composed(|| check("composed attention"));
    }
}
