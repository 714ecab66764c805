use layerfn::parametric_function;

#[parametric_function(scope = "gate")]
struct Gate;

fn main() {}
