//! `layerfn declare`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use layerfn::nnp::Nnp;

use crate::Outcome;

pub(crate) fn run(path: &Path, network: Option<&str>, output: &mut Vec<u8>) -> Outcome {
    let file = Nnp::open(path)?;
    let of_executor = file.executors().next().map(|name| file.network_of(name)).transpose()?;
    let Some(network) = network.or(of_executor).or_else(|| file.networks().next()) else {
        return Err(format!("`{}` has no network", path.display()).into());
    };
    output.write_all(file.declare(network)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
