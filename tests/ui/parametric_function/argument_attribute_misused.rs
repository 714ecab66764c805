use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn gate(
    #[opt(defualt = 1)] a: usize,
    #[opt(default)] b: usize,
    #[opt(default =)] c: usize,
    #[opt(default = 1, default = 2)] d: usize,
    #[opt(into = true)] e: usize,
    #[opt = 1] f: usize,
    #[opt] #[opt(into)] g: usize,
    #[opt(maybe)] h: usize,
    #[into(usize)] i: usize,
    #[optional] j: usize,
    #[into] k: &Tensor,
    #[cfg(test)] l: usize,
    #[opt("x")] m: usize,
) -> Result<usize> {
    Ok(a + b + c + d + e + f + g + h + i + j + k.rank() + l + m)
}

fn main() {}
