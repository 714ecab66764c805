//! Writes the Rust code of the wire messages: `cargo run -p layerfn-proto`, after a change of a `.proto` file.
//!
//! The result is committed, so that building the library needs neither `protoc` nor this program. With `--check`
//! nothing is written, and the exit code says whether the committed files are current.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Where the code goes, below the root of this package.
const TARGETS: &str = "../runtime/src";

type Generate = fn(&Path) -> Result<String, Box<dyn Error>>;

/// Every generated file.
const FILES: [(&str, Generate); 3] = [
    ("checkpoint/generated/nnabla.rs", |root| messages(root, "nnabla")),
    ("checkpoint/definition/schema.rs", table),
    ("onnx/generated/onnx.rs", |root| messages(root, "onnx")),
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    let mut code = ExitCode::SUCCESS;
    for (file, generate) in FILES {
        let (target, text) = (root.join(TARGETS).join(file), generate(root)?);
        if !check {
            std::fs::write(target, text)?;
        } else if std::fs::read_to_string(&target)? != text {
            eprintln!("{} is out of date: run `cargo run -p layerfn-proto`", target.display());
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// The messages of a package, which are decoded into structs.
fn messages(root: &Path, package: &str) -> Result<String, Box<dyn Error>> {
    let descriptors = protox::compile([format!("{package}.proto")], [root])?;
    let module = prost_build::Module::from_protobuf_package_name(package);
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    let requests = descriptors.file.into_iter().map(|file| (module.clone(), file)).collect();
    let code = config.generate(requests)?.remove(&module).ok_or("nothing was generated")?;
    Ok(code)
}

/// The table of all messages of network files.
fn table(root: &Path) -> Result<String, Box<dyn Error>> {
    let descriptors = protox::compile(["networks.proto"], [root])?;
    let messages = &descriptors.file.first().ok_or("no file")?.message_type;
    let mut code = format!(
        "//! Made from `proto/networks.proto` by `cargo run -p layerfn-proto`.\n\n\
         use super::message::Kind::{{Boolean, Double, Float, Integer, Message, Text, Unsigned}};\n\
         use super::message::{{Schema, many, one}};\n\n\
         /// Every message; a field that is a message says its place here.\n\
         #[rustfmt::skip]\npub(super) static MESSAGES: [Schema; {}] = [\n",
        messages.len()
    );
    for message in messages {
        writeln!(code, "    Schema {{ name: {:?}, fields: &[", message.name())?;
        for field in &message.field {
            let kind = match field.type_name().strip_prefix(".networks.") {
                Some(name) => {
                    let place = messages.iter().position(|message| message.name() == name);
                    format!("Message({})", place.ok_or("a field of an unknown type")?)
                }
                None => kind(field.r#type().as_str_name())?.to_owned(),
            };
            let count = if field.label().as_str_name() == "LABEL_REPEATED" { "many" } else { "one" };
            writeln!(code, "        {count}({:?}, {}, {kind}),", field.name(), field.number())?;
        }
        code.push_str("    ] },\n");
    }
    code.push_str("];\n");
    Ok(code)
}

fn kind(name: &str) -> Result<&'static str, String> {
    Ok(match name {
        "TYPE_BOOL" => "Boolean",
        "TYPE_DOUBLE" => "Double",
        "TYPE_FLOAT" => "Float",
        "TYPE_INT64" => "Integer",
        "TYPE_STRING" => "Text",
        "TYPE_UINT32" => "Unsigned",
        other => return Err(format!("the table has no type like {other}")),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_code_is_current() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, generate) in super::FILES {
            let committed = std::fs::read_to_string(root.join(super::TARGETS).join(file)).unwrap();
            assert_eq!(committed, generate(root).unwrap(), "{file}");
        }
    }
}
