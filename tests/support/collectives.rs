//! What every transport has to do.

use candle_core::{DType, Device, Tensor};
use layerfn::Result;
use layerfn::communicator::Communicator;

use crate::flat;

/// The element `i` of the tensor `number` of a rank.
fn element(rank: usize, number: usize, i: usize) -> f64 {
    ((rank + 1) * (i % 17 + 3) + number) as f64 / 8.0
}

/// Checks all operations of a group on tensors of `n` elements, or a few more, against what they are defined as. All ranks call it.
///
/// # Errors
/// Those of the operations.
///
/// # Panics
/// If a result is another one.
pub fn check(communicator: &Communicator, n: usize, dtype: DType, device: &Device) -> Result<()> {
    let (rank, size) = (communicator.rank(), communicator.size());
    let tensor = |rank, number, n| -> Result<Tensor> {
        let elements: Vec<f64> = (0..n).map(|i| element(rank, number, i)).collect();
        Ok(Tensor::from_vec(elements, n, &Device::Cpu)?.to_dtype(dtype)?)
    };
    let own = |number| Ok(tensor(rank, number, n)?.to_device(device)?);
    // In the order of the ranks, rounded as the type rounds.
    let sum = |number| -> Result<Tensor> {
        (1..size).try_fold(tensor(0, number, n)?, |sum, rank| Ok((sum + tensor(rank, number, n)?)?))
    };
    for division in [false, true] {
        let wanted = |number| -> Result<Vec<f64>> {
            Ok(flat(&if division { (sum(number)? / size as f64)? } else { sum(number)? }))
        };
        let reduced = communicator.all_reduce(&[own(0)?, own(1)?], division)?;
        assert_eq!([flat(&reduced[0]), flat(&reduced[1])], [wanted(0)?, wanted(1)?], "all_reduce");
        let root = size - 1;
        match communicator.reduce(&[own(2)?], root, division)? {
            Some(reduced) => assert_eq!((rank, flat(&reduced[0])), (root, wanted(2)?), "reduce"),
            None => assert_ne!(rank, root, "reduce"),
        }
        let of_ranks = (0..size).map(own).collect::<Result<Vec<_>>>()?;
        assert_eq!(flat(&communicator.reduce_scatter(&of_ranks, division)?), wanted(rank)?, "reduce_scatter");
    }
    let root = size / 2;
    let sent = communicator.broadcast(&[own(5)?], root)?;
    assert!(sent[0].device().same_device(device));
    assert_eq!(flat(&sent[0]), flat(&tensor(root, 5, n)?), "broadcast");
    let gathered = communicator.all_gather(&tensor(rank, 0, n + rank)?.to_device(device)?)?;
    for (rank, gathered) in gathered.iter().enumerate() {
        assert_eq!(flat(gathered), flat(&tensor(rank, 0, n + rank)?), "all_gather");
    }
    communicator.barrier()
}
