//! Files that mean harm: bounded work, bounded memory, and an error.

use std::fmt::Write as _;

use layerfn::Result;

use super::{ones, opened, output, refusal};

/// A chain of so many functions.
fn chain(length: usize) -> String {
    let mut text =
        String::from("network { name: \"n\" variable { name: \"v0\" type: \"Buffer\" shape { dim: 1 } }\n");
    // From the end, so that the order has to be found.
    for n in (0..length).rev() {
        let next = n + 1;
        writeln!(text, "variable{{name:\"v{next}\" type:\"Buffer\"}}function{{type:\"Identity\" input:\"v{n}\" output:\"v{next}\"}}")
            .unwrap();
    }
    text + "}"
}

#[test]
fn a_network_may_be_long() -> Result<()> {
    let text = chain(200_000).replace("\"v0\"", "\"x\"");
    assert_eq!(output(&opened(&text)?, ones(&[1])), [1.0]);
    Ok(())
}

#[test]
fn loops_do_not_multiply_without_end() {
    let mut text = String::from("network { name: \"n\"");
    let loops: String = (0..8).map(|n| format!(" repeat_id: \"L{n}\"")).collect();
    for n in 0..8 {
        write!(text, " repeat_info {{ id: \"L{n}\" times: 1000000000 }}").unwrap();
    }
    write!(text, " variable {{ name: \"x\" type: \"Buffer\" {loops} }} }}").unwrap();
    assert!(refusal(&text).contains("more variables and functions than there is room for"));
}

#[test]
fn names_do_not_grow_without_end() {
    let name = "x".repeat(100_000);
    let text = format!(
        "network {{ name: \"n\" repeat_info {{ id: \"R\" times: 1000000 }} \
         variable {{ name: \"{name}\" type: \"Buffer\" repeat_id: \"R\" }} }}"
    );
    assert!(refusal(&text).contains("more variables and functions than there is room for"));
}

#[test]
fn braces_do_not_lie_deeper_than_the_format() {
    let text = "network { ".repeat(100_000);
    assert!(opened(&text).unwrap_err().to_string().contains("`Network` has no field `network`"));
    let text = format!("parameter {{ a {} }}", "{ a ".repeat(100_000));
    assert!(opened(&text).is_err());
}

#[test]
fn a_circle_is_an_error_and_no_hang() {
    let length = 50_000;
    let text = chain(length).replace("input:\"v0\"", &format!("input:\"v{length}\""));
    let error = refusal(&text);
    assert!(error.contains("50000 functions wait for each other in a circle"), "{error}");
}

#[test]
fn text_in_messages_is_short() {
    let name = "long".repeat(100_000);
    let error = refusal(&format!(
        "network {{ name: \"n\" function {{ name: \"{name}\" type: \"{name}\" input: \"{name}\" }} }}"
    ));
    assert!(error.len() < 4000, "{} bytes", error.len());
}

#[test]
fn a_short_file_does_not_fill_the_memory() {
    for size in [1i64 << 29, 1 << 40, i64::MAX] {
        let text = super::AFFINE.replace("dim: 3 dim: 2", &format!("dim: 3 dim: {size}"));
        let error = refusal(&text);
        assert!(
            error.contains("numbers of parameters without their values") || error.contains("can be counted"),
            "{error}"
        );
    }
}
