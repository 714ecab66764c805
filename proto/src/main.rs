//! Writes the Rust code of the wire messages: `cargo run -p layerfn-proto`, after a change of `nnabla.proto`.
//!
//! The result is committed, so that building the library needs neither `protoc` nor this program. With `--check`
//! nothing is written, and the exit code says whether the committed file is current.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("../runtime/src/checkpoint/generated/nnabla.rs");
    let code = generate(root)?;
    if std::env::args().nth(1).as_deref() != Some("--check") {
        std::fs::write(target, code)?;
        return Ok(ExitCode::SUCCESS);
    }
    if std::fs::read_to_string(&target)? == code {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} is out of date: run `cargo run -p layerfn-proto`", target.display());
    Ok(ExitCode::FAILURE)
}

fn generate(root: &Path) -> Result<String, Box<dyn Error>> {
    let descriptors = protox::compile(["nnabla.proto"], [root])?;
    let module = prost_build::Module::from_protobuf_package_name("nnabla");
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    let requests = descriptors.file.into_iter().map(|file| (module.clone(), file)).collect();
    let code = config.generate(requests)?.remove(&module).ok_or("nothing was generated")?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_code_is_current() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let committed = root.join("../runtime/src/checkpoint/generated/nnabla.rs");
        assert_eq!(std::fs::read_to_string(committed).unwrap(), super::generate(root).unwrap());
    }
}
