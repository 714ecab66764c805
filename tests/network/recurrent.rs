//! Recurrent layers: states that go in and come out, and the graph they keep.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::prelude::*;
use layerfn::{
    LSTMCell, ParameterStore, Result, backward, functions, get_parameter, gru, gru_cell, lstm, lstm_n_step,
    no_grad, recur, recur_from, rnn, test_mode,
};

use super::{noise, values};

fn zeros() -> Result<Tensor> {
    Ok(Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?)
}

#[test]
fn a_sequence_in_pieces_is_the_whole() -> Result<()> {
    ParameterStore::new().enter(|| {
        for axis in [0, 1] {
            let x = noise(&if axis == 1 { [2, 7, 3] } else { [7, 2, 3] })?;
            let cell = |x: &Tensor, h: &Tensor, c: &Tensor| lstm(x, h, c, 4).call();
            let whole = recur(&x, axis, 4, cell)?;
            let (first, h, c) = recur_from(&x.narrow(axis, 0, 3)?, axis, (&zeros()?, &zeros()?), cell)?;
            let (second, h, c) = recur_from(&x.narrow(axis, 3, 4)?, axis, (&h, &c), cell)?;
            assert_eq!(values(&Tensor::cat(&[&first, &second], axis)?)?, values(&whole)?);

            let mut by_hand = LSTMCell::new(2, 4);
            for t in 0..7 {
                by_hand.step(&x.get_on_dim(axis, t)?.contiguous()?)?;
            }
            assert_eq!(values(&h)?, values(by_hand.h().unwrap())?);
            assert_eq!(values(&c)?, values(by_hand.c().unwrap())?);
        }
        Ok(())
    })
}

#[test]
fn gradients_flow_through_states_until_they_are_detached() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = noise(&[2, 3, 3])?;
        let h = Var::from_tensor(&noise(&[2, 4])?)?;
        let cell = |x: &Tensor, h: &Tensor, c: &Tensor| lstm(x, h, c, 4).call();
        let (y, ..) = recur_from(&x, 1, (&h, &zeros()?), cell)?;
        assert!(backward(&y.sum_all()?)?.get(&h).is_some());
        let (y, ..) = recur_from(&x, 1, (&h.detach(), &zeros()?), cell)?;
        let gradients = backward(&y.sum_all()?)?;
        assert!(gradients.get(&h).is_none());
        assert!(gradients.get(get_parameter("lstm/affine/W").unwrap().var()).is_some());
        Ok(())
    })
}

#[test]
fn no_graph_is_kept_in_test_mode() -> Result<()> {
    ParameterStore::new().enter(|| {
        let mut cell = LSTMCell::new(2, 4);
        let x = noise(&[2, 3])?;
        assert!(cell.step(&x)?.track_op());
        assert!(!test_mode(|| cell.step(&x))?.track_op());
        assert!(cell.h().is_some_and(|h| !h.track_op()) && cell.c().is_some_and(|c| !c.track_op()));
        // A cell of one's own, too.
        let weight = Var::from_tensor(&noise(&[3, 4])?)?;
        let own = |x: &Tensor, h: &Tensor, c: &Tensor| -> Result<(Tensor, Tensor)> {
            Ok(((x.matmul(&weight)? + h)?, c.clone()))
        };
        let (y, h, _) = test_mode(|| recur_from(&noise(&[2, 5, 3])?, 1, (&zeros()?, &zeros()?), own))?;
        assert!(!y.track_op() && !h.track_op());
        Ok(())
    })
}

#[test]
fn an_axis_without_steps_is_refused() -> Result<()> {
    let cell = |_: &Tensor, h: &Tensor, c: &Tensor| Ok::<_, layerfn::Error>((h.clone(), c.clone()));
    for (dims, axis) in [(&[2, 0, 3][..], 1), (&[2, 3], 2), (&[3], 0)] {
        let x = Tensor::zeros(dims, DType::F32, &Device::Cpu)?;
        for result in
            [recur(&x, axis, 4, cell).map(drop), recur_from(&x, axis, (&zeros()?, &zeros()?), cell).map(drop)]
        {
            assert!(result.unwrap_err().to_string().starts_with("`axis` must be an axis of"));
        }
    }
    Ok(())
}

#[test]
fn steps_and_states_that_no_memory_holds_are_refused() -> Result<()> {
    ParameterStore::new().enter(|| {
        let one = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
        let cell = |x: &Tensor, h: &Tensor, c: &Tensor| lstm(x, h, c, 1).call();
        let refused = |dims: &[usize], axis, size| -> Result<String> {
            Ok(recur(&one.broadcast_as(dims)?, axis, size, cell).unwrap_err().to_string())
        };
        for (dims, axis, size) in [
            (&[1 << 45, 1][..], 0, 1),
            (&[1, 2, 1 << 40], 1, 1),
            (&[1 << 40, 2, 1], 1, 1),
            (&[2, 2, 1], 1, 1 << 60),
        ] {
            let error = refused(dims, axis, size)?;
            assert!(error.contains("memory") || error.contains("counted"), "{error}");
        }
        Ok(())
    })
}

/// `recur` with a cell is the layer over the sequence, with the same weights.
#[test]
fn steps_of_a_gru_cell_are_a_gru() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = noise(&[2, 7, 3])?;
        let net = network! { recur(1, 4, |x, h, _| gru_cell(x, h, 4)) };
        let y = net.forward(&x)?;
        let [w, b] = ["W", "b"].map(|name| get_parameter(&format!("gru_cell/{name}")).unwrap());
        let (w, b) = (w.var().unsqueeze(0)?, b.var().reshape((1, 1, 4, 4))?);
        let h = Tensor::zeros((1, 1, 2, 4), DType::F32, &Device::Cpu)?;
        let steps_first = x.transpose(0, 1)?.contiguous()?;
        let (want, _) = gru(&steps_first, &h).w0_init(&w).b_init(&b).call()?;
        assert_eq!(values(&y)?, values(&want.transpose(0, 1)?)?);
        assert!(!test_mode(|| net.forward_t(&x, false))?.track_op());
        Ok(())
    })
}

/// A cell with one state: the second goes through unchanged, and the output is the last state.
#[test]
fn a_cell_of_one_state_leaves_the_other_alone() -> Result<()> {
    ParameterStore::new().enter(|| {
        let (x, c) = (noise(&[2, 3, 3])?, noise(&[2, 4])?);
        let (y, h, after) = recur_from(&x, 1, (&zeros()?, &c), |x, h, _| gru_cell(x, h, 4))?;
        assert_eq!(values(&after)?, values(&c)?);
        assert_eq!(values(&h)?, values(&y.get_on_dim(1, 2)?.contiguous()?)?);
        Ok(())
    })
}

/// In pieces with `detach` between them, each piece has the gradient that it has alone with its first states as constants.
#[test]
fn truncated_backpropagation_takes_states_as_constants() -> Result<()> {
    fn gradient(loss: &Tensor, name: &str) -> Result<Vec<f32>> {
        values(backward(loss)?.get(get_parameter(name).unwrap().var()).unwrap())
    }
    ParameterStore::new().enter(|| {
        let (x, name) = (noise(&[2, 6, 3])?, "gru_cell/W");
        let cell = |x: &Tensor, h: &Tensor, _: &Tensor| gru_cell(x, h, 4);
        let mut h = zeros()?;
        let mut sum = vec![0.0; 3 * 4 * 7];
        for piece in x.chunk(2, 1)? {
            let constant = Tensor::from_vec(values(&h)?, h.dims(), &Device::Cpu)?;
            let (alone, ..) = recur_from(&piece, 1, (&constant, &zeros()?), cell)?;
            let (y, last, _) = recur_from(&piece, 1, (&h, &zeros()?), cell)?;
            let of_piece = gradient(&y.sum_all()?, name)?;
            assert_eq!(of_piece, gradient(&alone.sum_all()?, name)?);
            sum.iter_mut().zip(&of_piece).for_each(|(sum, x)| *sum += x);
            h = last.detach();
        }
        let whole = gradient(&recur(&x, 1, 4, cell)?.sum_all()?, name)?;
        assert!(
            whole.iter().zip(&sum).any(|(whole, sum)| (whole - sum).abs() > 1e-3),
            "gradients cross pieces"
        );
        Ok(())
    })
}

/// A stream through a layer over sequences: the states of a piece are those that the next begins with.
#[test]
fn layers_over_sequences_go_on_where_they_stopped() -> Result<()> {
    ParameterStore::new().enter(|| {
        let (x, h) = (noise(&[6, 2, 3])?, noise(&[2, 1, 2, 4])?);
        let (whole, last_h, last_c) = lstm_n_step(&x, &h, &h).call()?;
        let (first, h1, c1) = lstm_n_step(&x.narrow(0, 0, 2)?, &h, &h).call()?;
        let (second, h2, c2) = lstm_n_step(&x.narrow(0, 2, 4)?, &h1, &c1).call()?;
        assert_eq!(values(&Tensor::cat(&[&first, &second], 0)?)?, values(&whole)?);
        assert_eq!((values(&h2)?, values(&c2)?), (values(&last_h)?, values(&last_c)?));
        Ok(())
    })
}

#[test]
fn layers_over_sequences_keep_no_graph_unless_in_training() -> Result<()> {
    ParameterStore::new().enter(|| {
        let (x, h) = (noise(&[3, 2, 3])?, noise(&[2, 1, 2, 4])?);
        let run = |training: bool| -> Result<Vec<Tensor>> {
            let (y, h1) = rnn(&x, &h).training(training).call()?;
            let (z, h2) = gru(&x, &h).training(training).call()?;
            let (u, h3, c3) = lstm_n_step(&x, &h, &h).training(training).call()?;
            Ok(vec![y, h1, z, h2, u, h3, c3])
        };
        assert!(run(true)?.iter().all(Tensor::track_op));
        for results in [run(false)?, test_mode(|| run(true))?, no_grad(|| run(true))?] {
            assert!(results.iter().all(|result| !result.track_op()));
        }
        Ok(())
    })
}

/// Two layers of which the second passes its input on: what is dropped is seen in the outputs.
#[test]
fn elements_between_layers_are_dropped_in_training() -> Result<()> {
    ParameterStore::new().enter(|| {
        let tensor = |data: &[f32], dims: &[usize]| Tensor::from_slice(data, dims, &Device::Cpu);
        let w0 = tensor(&[1., 0., 0., 0., 0., 1., 0., 0.], &[1, 2, 4])?;
        let w = w0.unsqueeze(0)?;
        let (x, h) = (
            Tensor::ones((50, 4, 2), DType::F32, &Device::Cpu)?,
            Tensor::zeros((2, 1, 4, 2), DType::F32, &Device::Cpu)?,
        );
        let layer = || {
            let layer = rnn(&x, &h).nonlinearity(functions::Nonlinearity::Relu).with_bias(false);
            layer.w0_init(&w0).w_init(&w).dropout(0.75).rng(Rng::new(3))
        };
        let (y, last) = layer().call()?;
        let y = values(&y)?;
        assert!(y.iter().all(|&y| y == 0.0 || y == 4.0));
        let kept = y.iter().filter(|&&y| y == 4.0).count();
        assert!((50..150).contains(&kept), "{kept} of 400 are kept");
        // Not the outputs of the first layer themselves.
        assert_eq!(values(&last.get(0)?)?, [1.0; 8]);
        assert_eq!(values(&layer().call()?.0)?, y, "the same generator");
        for (y, _) in [test_mode(|| layer().call())?, layer().training(false).call()?] {
            assert_eq!(values(&y)?, [1.0; 400]);
        }
        Ok(())
    })
}

#[test]
fn what_the_states_contradict_is_refused() -> Result<()> {
    ParameterStore::new().enter(|| {
        let (x, h) = (noise(&[3, 2, 3])?, noise(&[2, 1, 2, 4])?);
        let text = |result: Result<(Tensor, Tensor)>| result.unwrap_err().root().to_string();
        assert_eq!(
            text(rnn(&x, &h).num_layers(1).call()),
            "`num_layers` must be 2, the size of the first axis of `h`, or be left out, got 1"
        );
        assert_eq!(
            text(gru(&x, &h).bidirectional(true).call()),
            "`bidirectional` must be false for an `h` of shape [2, 1, 2, 4], got true"
        );
        assert_eq!(
            text(gru(&x, &h).dropout(1.0).training(false).call()),
            "`dropout` must be in [0, 1), got 1.0"
        );
        assert_eq!(
            text(rnn(&x, &h.to_dtype(DType::F64)?).call()),
            "`h` must have the element type of `x`, F32, got F64"
        );
        let error = lstm_n_step(&x, &h, &noise(&[2, 1, 2, 3])?).call().unwrap_err();
        assert_eq!(error.root().to_string(), "`c` must have the shape [2, 1, 2, 4] of `h`, got [2, 1, 2, 3]");
        assert!(layerfn::get_all_parameters().is_empty());
        Ok(())
    })
}

/// The input's weights and the state's are drawn within limits of their own.
#[test]
fn weights_start_within_glorots_limits() -> Result<()> {
    ParameterStore::new().enter(|| {
        let (x, h) = (noise(&[1, 1, 90])?, noise(&[2, 2, 1, 30])?);
        gru(&x, &h).bidirectional(true).call()?;
        for (name, inmaps) in [("gru/weight_l0", 90), ("gru/weight", 60)] {
            let w = get_parameter(name).unwrap();
            let w = w.var().flatten_to(w.var().rank() - 2)?;
            for (columns, inmaps) in [(w.narrow(1, 0, inmaps)?, inmaps), (w.narrow(1, inmaps, 30)?, 30)] {
                let (_, limit) = layerfn::calc_uniform_lim_glorot(inmaps, 30, &[]);
                let largest = f64::from(columns.abs()?.max_all()?.to_scalar::<f32>()?);
                assert!(largest <= limit && largest > 0.97 * limit, "{name}: {largest} for {limit}");
            }
        }
        assert_eq!(values(get_parameter("gru/bias").unwrap().var())?, [0.0; 480]);
        Ok(())
    })
}
