//! What the compiler says about every mistake in a macro.

/// The texts are rustc's too, so they are held for one compiler; `TRYBUILD=overwrite` writes them anew.
#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("ui/*/*.rs");
}
