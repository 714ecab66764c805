//! Recurrent layers: states that go in and come out, and the graph they keep.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::{
    LSTMCell, ParameterStore, Result, backward, get_parameter, lstm, recur, recur_from, test_mode,
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
