//! The `quantize` program, as a user runs it.

use std::process::Command;

#[test]
fn integers_are_nearly_as_good_as_floats() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_quantize")).arg("--smoke").output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let accuracy = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split('%').next()).expect(name).trim().parse().expect("a number")
    };
    let (float, int8) = (accuracy("float"), accuracy("int8"));
    assert!(float > 50.0 && (float - int8).abs() <= 1.0, "{text}");
    assert!(text.contains("integers: affine, affine_2/affine\n"), "{text}");
}
