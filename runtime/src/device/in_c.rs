//! The kernels for CUDA as a C program, one for each call: their arithmetic can be tested without a GPU.

use std::cell::Cell;
use std::fmt::Write as _;
use std::process::Command;

use candle_core::{DType, Result, Tensor};

use super::Arguments;
use crate::kernels::cuda::Kernel;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn is_on() -> bool {
    ON.get()
}

/// Runs `f` as on a GPU, with compositions and kernels, of which C is made.
pub(super) fn with_kernels_in_c<R>(f: impl FnOnce() -> R) -> R {
    ON.set(true);
    let result = super::composed(f);
    ON.set(false);
    result
}

/// What stands before a source to make C of it.
const PRELUDE: &str = "#include <stdio.h>\n#include <tgmath.h>\n#define KERNEL static\n#define INLINE static\n\
                       #define FOR_EACH(i, n) for (unsigned long long i = 0; i < n; i++)\n";

pub(super) fn fused(
    kernel: Kernel<'_>,
    n: usize,
    arguments: Arguments<'_>,
    out_len: usize,
) -> Result<Tensor> {
    let Arguments { sizes, numbers, inputs } = arguments;
    let dtype = inputs[0].dtype();
    let number = if dtype == DType::F32 { "float" } else { "double" };
    let indices = kernel.name == "max_pool_places";
    assert!(kernel.takes(sizes.len(), numbers.len(), inputs.len(), indices), "{}", kernel.name);
    let result = if indices { "unsigned" } else { "T" };
    let mut program = format!("typedef {number} T;\n{PRELUDE}{}\nint main(void) {{\n", kernel.source);
    let mut call = format!("{}({n}", kernel.name);
    let constant = |x: f64| match x {
        _ if x.is_nan() => "NAN".to_owned(),
        _ if x.is_infinite() => format!("{}INFINITY", if x < 0.0 { "-" } else { "" }),
        _ => format!("{x:e}"),
    };
    sizes.iter().for_each(|size| call += &format!(", {size}"));
    numbers.iter().for_each(|&number| call += &format!(", {}", constant(number)));
    for (i, input) in inputs.iter().enumerate() {
        let values = input.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let values: Vec<_> = values.into_iter().map(constant).collect();
        writeln!(program, "static const T a{i}[] = {{{}}};", values.join(", ")).unwrap();
        write!(call, ", a{i}").unwrap();
    }
    // Nothing that the kernel leaves out may look like a result.
    program += &format!(
        "static {result} out[{out_len}];\nfor (int i = 0; i < {out_len}; i++) out[i] = ({result})12345;\n{call}, out);\n\
         for (int i = 0; i < {out_len}; i++) printf(\"%.17g\\n\", (double)out[i]);\nreturn 0;\n}}\n"
    );
    let folder = tempfile::tempdir()?;
    let (source, binary) = (folder.path().join("kernel.c"), folder.path().join("kernel"));
    std::fs::write(&source, &program)?;
    let compiler =
        Command::new("cc").arg(&source).arg("-o").arg(&binary).args(["-std=c11", "-lm"]).output()?;
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    let output = String::from_utf8_lossy(&Command::new(&binary).output()?.stdout).into_owned();
    let values: Vec<f64> = output.lines().map(|line| line.parse().unwrap()).collect();
    Tensor::from_vec(values, out_len, inputs[0].device())?.to_dtype(dtype)
}
