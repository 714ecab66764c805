//! Teaches two layers of one's own the exclusive or, and prints what there is to know about them.
//!
//! Run with `cargo run --bin custom_layer`.

use custom_layer::{Gated, gated};
use layerfn::LayerInfo;
use layerfn::prelude::*;
use layerfn::solver::Sgd;

const RATE: f64 = 0.2;
const STEPS: usize = 300;

fn main() -> Result<()> {
    describe(Gated::INFO);

    let x = Tensor::new(&[[-1f32, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], &Device::Cpu)?;
    let wanted = Tensor::new(&[[-1f32], [1.0], [1.0], [-1.0]], &Device::Cpu)?;
    let net = network! { hidden: gated(8) -> tanh -> out: gated(1) };

    net.forward(&x)?; // makes the parameters
    let mut solver = Sgd::new(RATE);
    solver.set_parameters(&get_parameters());
    for step in 0..=STEPS {
        let loss = (net.forward(&x)? - &wanted)?.sqr()?.mean_all()?;
        if step % 50 == 0 {
            println!("step {step:4}   loss {:.6}", loss.to_scalar::<f32>()?);
        }
        solver.update(&backward(loss)?)?;
    }

    println!("\n  input    wanted  answer");
    let answers = test_mode(|| net.forward(&x))?;
    for row in 0..4 {
        let input = x.get(row)?.to_vec1::<f32>()?;
        let (wanted, answer) =
            (wanted.get(row)?.to_vec1::<f32>()?[0], answers.get(row)?.to_vec1::<f32>()?[0]);
        println!("({:2}, {:2})  {wanted:6}  {answer:6.3}", input[0], input[1]);
    }

    println!("\n{:18} {:7} {:8} values", "parameter", "shape", "trained");
    for (path, parameter) in get_all_parameters().iter() {
        let (shape, trained) = (format!("{:?}", parameter.var().dims()), parameter.need_grad());
        let values = parameter.var().flatten_all()?.to_vec1::<f32>()?;
        let shown: Vec<String> = values.iter().take(4).map(|value| format!("{value:6.3}")).collect();
        let dots = if values.len() > 4 { " .." } else { "" };
        println!("{path:18} {shape:7} {trained:<8} {}{dots}", shown.join(" "));
    }
    Ok(())
}

/// Prints a layer's declaration.
fn describe(layer: &LayerInfo) {
    println!("{}: {}\n", layer.name, layer.doc);
    println!("{:10} {:20} {:8} meaning", "argument", "type", "default");
    for argument in layer.arguments {
        let default = argument.default.unwrap_or("required");
        println!("{:10} {:20} {default:8} {}", argument.name, argument.ty, argument.doc);
    }
    println!("\n{:18} {:18} {:8} meaning", "parameter", "shape", "trained");
    for parameter in layer.parameters {
        let path = format!("{}/{}", layer.scope, parameter.name);
        println!("{path:18} {:18} {:<8} {}", parameter.shape, parameter.need_grad, parameter.doc);
    }
    println!();
}
