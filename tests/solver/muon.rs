//! Muon against plain loops.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::solver::{Muon, Solver};
use layerfn::{Parameter, Parameters, Result};

use super::{assert_close, gradients, parameters, run};

type Matrix = Vec<Vec<f64>>;

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let row =
        |row: &Vec<f64>| (0..b[0].len()).map(|j| row.iter().zip(b).map(|(a, b)| a * b[j]).sum()).collect();
    a.iter().map(row).collect()
}

fn transposed(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

fn sum(a: &Matrix, x: f64, b: &Matrix, y: f64) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| x * a + y * b).collect()).collect()
}

/// Five steps of Newton and Schulz, as the author writes them.
fn orthogonal(u: &Matrix) -> Matrix {
    let length = u.iter().flatten().map(|u| u * u).sum::<f64>().sqrt();
    let tall = u.len() > u[0].len();
    let mut x = if tall { transposed(u) } else { u.clone() };
    x.iter_mut().flatten().for_each(|x| *x /= length);
    for _ in 0..5 {
        let a = product(&x, &transposed(&x));
        let b = sum(&a, -4.775, &product(&a, &a), 2.0315);
        x = sum(&x, 3.4445, &product(&b, &x), 1.0);
    }
    if tall { transposed(&x) } else { x }
}

fn matrix(tensor: &Tensor) -> Result<Matrix> {
    Ok(tensor.flatten_from(1)?.to_dtype(DType::F64)?.to_vec2()?)
}

#[test]
fn steps_are_those_of_the_author() -> Result<()> {
    let check = || -> Result<()> {
        for (dims, dtype, tolerance) in [
            (&[3, 5][..], DType::F64, 1e-12),
            (&[5, 3], DType::F64, 1e-12),
            (&[4, 2, 2, 2], DType::F64, 1e-12),
            (&[16, 9], DType::F32, 1e-4),
        ] {
            let w = Var::from_tensor(&layerfn_tests::values(dims.to_vec(), 1).to_dtype(dtype)?)?;
            let all: Parameters = [("w".to_owned(), Parameter::new(w.clone(), true))].into_iter().collect();
            let mut want = matrix(&w)?;
            let mut m = sum(&want, 0.0, &want, 0.0);
            let mut solver = Muon::new(0.02).momentum(0.9).weight_decay(0.1);
            solver.set_parameters(&all);
            for t in 0..3 {
                let g = layerfn_tests::values(dims.to_vec(), 10 + t).to_dtype(dtype)?;
                let of_g = matrix(&g)?;
                m = sum(&m, 0.9, &of_g, 1.0);
                let rate = 0.02 * (m.len() as f64 / m[0].len() as f64).max(1.0).sqrt();
                let step = sum(&orthogonal(&sum(&of_g, 1.0, &m, 0.9)), rate, &want, 0.02 * 0.1);
                want = sum(&want, 1.0, &step, -1.0);
                let mut store = gradients(&all, &[None])?;
                store.insert(&w, g);
                solver.update(&store)?;
                assert_close(&matrix(&w)?.concat(), &want.concat(), tolerance);
            }
            let states = solver.get_states()?;
            assert_eq!(states.paths().collect::<Vec<_>>(), ["w/m", "w/t"]);
            assert_close(&matrix(states.get("w/m").unwrap().var())?.concat(), &m.concat(), tolerance);
            solver.set_states(&states)?;
        }
        Ok(())
    };
    check()?;
    layerfn::__private::composed(check)
}

#[test]
fn a_vector_belongs_to_another_solver() -> Result<()> {
    let all = parameters(&[("fc/b", 3)], DType::F32)?;
    let mut solver = Muon::new(0.02);
    solver.set_parameters(&all);
    let error = run(&mut solver, &all, 0, 1).unwrap_err().to_string();
    assert_eq!(
        error,
        "`parameters` must be matrices for Muon; give `fc/b` to another solver, such as `AdamW`, got [3]"
    );
    Ok(())
}

#[test]
fn a_gradient_of_nothing_moves_nothing() -> Result<()> {
    let w = Var::ones((2, 3), DType::F32, &Device::Cpu)?;
    let all: Parameters = [("w".to_owned(), Parameter::new(w.clone(), true))].into_iter().collect();
    let mut solver = Muon::new(0.02);
    solver.set_parameters(&all);
    let mut store = gradients(&all, &[None])?;
    store.insert(&w, w.zeros_like()?);
    solver.update(&store)?;
    assert_eq!(w.to_vec2::<f32>()?, [[1.0; 3]; 2]);
    Ok(())
}
