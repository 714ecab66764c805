//! Each mistake is reported at the right place and says what to write instead.
//!
//! One file a mistake. After a change of a message: `TRYBUILD=overwrite cargo test -p layerfn-tests --test ui`, then read
//! the difference.

use std::process::Command;

/// The compiler whose messages are recorded; others word and place theirs differently.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn mistakes_are_explained() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version =
        Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    if !version.starts_with(COMPILER.as_bytes()) {
        println!("skipped: the messages are those of {COMPILER}");
        return;
    }
    trybuild::TestCases::new().compile_fail("ui/*/*.rs");
}
