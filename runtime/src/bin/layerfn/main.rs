//! `layerfn`: looks at checkpoints, converts and compares them, exports and declares networks, and lists the layers.
//!
//! Exit code: 0 if all went well, 1 if `diff` found differences, 2 if something is wrong.

mod convert;
mod declare;
mod diff;
mod export;
mod inspect;
mod layers;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use layerfn::checkpoint::Rule;

use convert::{Libraries, Library};

/// Looks at checkpoints, converts and compares them, exports and declares networks, and lists the layers.
///
/// The extension of a file says its format: .h5 .protobuf .nntxt .prototxt .nnp .npz .safetensors; .pt, .pth and .keras are only read
///
/// Colours are for terminals only, and for none if NO_COLOR is set.
#[derive(Parser)]
#[command(
    name = "layerfn",
    version,
    after_help = "Exit code: 0 if all went well, 1 if `diff` found differences, 2 if something is wrong."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the parameters of a file: shape, type, need_grad, statistics and a histogram
    Inspect {
        /// The checkpoint
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint in another format
    Convert {
        /// The checkpoint to read
        input: PathBuf,
        /// The checkpoint to write
        output: PathBuf,
        /// A change of the parameters, such as `transpose(fc.weight)`, `drop(**.num_batches_tracked)`, `rename(a.*, b/*)`,
        /// `permute(w, 1, 0)`, `reshape(w, 2, 3)`, `split(*.qkv, 0, *.q, *.k, *.v)`, `merge(*.q, *.k, *.v, 0, *.qkv)`,
        /// `channels_first(fc/kernel, 7, 7)`, `channels_last(fc/affine/W, 7, 7)`, `heads(att/*/*, 8)` or `multiplier(dw/*/W, 2)`;
        /// they are applied in order
        #[arg(long = "rule", value_name = "RULE")]
        rules: Vec<Rule>,
        /// The library whose names and layouts the input has, after the rules; needs --like
        #[arg(long, value_name = "LIBRARY", requires = "like")]
        from: Option<Library>,
        /// A checkpoint of the model that the parameters are for: its paths say which layer each belongs to
        #[arg(long, value_name = "FILE", requires = "from")]
        like: Option<PathBuf>,
        /// The library whose names and layouts the output gets
        #[arg(long, value_name = "LIBRARY", conflicts_with = "from")]
        to: Option<Library>,
        /// Go on where the format cannot keep a type, a value, a network or other metadata
        #[arg(long)]
        allow_loss: bool,
    },
    /// Write a network for another program: .onnx for onnxruntime and its like, .nnp or .nntxt for NNabla
    Export {
        /// The network to read: .nnp, .nntxt, .prototxt, .protobuf or .onnx
        input: PathBuf,
        /// The file to write
        #[arg(short, long)]
        output: PathBuf,
        /// The executor that says which network it is and what comes out; the first one of the file if none is named
        #[arg(long, value_name = "NAME")]
        executor: Option<String>,
    },
    /// Print Rust code that declares a network: a function made by `network!`
    Declare {
        /// The file of the network: .nnp, .nntxt, .prototxt or .protobuf
        file: PathBuf,
        /// The network; that of the first executor if none is named
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Compare two checkpoints: parameters, shapes, types, flags and values
    Diff {
        /// One checkpoint
        left: PathBuf,
        /// The other
        right: PathBuf,
        /// Largest difference of two values that counts as none
        #[arg(long, default_value_t = 0.0, value_parser = diff::tolerance)]
        tolerance: f64,
        /// Compare types too: the formats of NNabla's protobuf know f32 only
        #[arg(long)]
        types: bool,
    },
    /// Write a checkpoint with other paths
    Rename {
        /// The checkpoint to read
        input: PathBuf,
        /// The checkpoint to write
        output: PathBuf,
        /// A rule; `*` and `?` stand for characters of one part, `**` for any parts; the first that matches counts
        #[arg(long = "rule", value_name = "FROM=TO", required = true, value_parser = convert::rule)]
        rules: Vec<(String, String)>,
        /// Go on where the format cannot keep a type, a value, a network or other metadata
        #[arg(long)]
        allow_loss: bool,
    },
    /// List the layers, or show the arguments and parameters of some
    Layers {
        /// Layers to show, by their names or their scopes, as in `convolution` or `conv`
        names: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of the program or of a command, for `man -l -`
    Man {
        /// The command
        command: Option<String>,
    },
}

/// What ends the program, with an exit code of its own.
type Outcome = Result<ExitCode, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut output = Vec::new();
    let outcome = run(Arguments::parse().command, &mut output);
    // A reader that has seen enough, as `head` does, is not an error.
    let mut stdout = anstream::AutoStream::auto(io::stdout());
    let written = stdout.write_all(&output).and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("layerfn: cannot write the output: {error}");
        return ExitCode::from(2);
    }
    outcome.unwrap_or_else(|error| {
        let message = error.to_string();
        let lines: Vec<_> = message.split('\n').map(table::plain).collect();
        eprintln!("layerfn: {}", lines.join("\n"));
        ExitCode::from(2)
    })
}

fn run(command: Command, output: &mut Vec<u8>) -> Outcome {
    match command {
        Command::Inspect { file, json } => inspect::run(&file, json, output),
        Command::Convert { input, output, rules, from, like, to, allow_loss } => {
            let libraries = Libraries { from: from.zip(like), to };
            convert::run(&input, &output, &rules, libraries, allow_loss)
        }
        Command::Export { input, output, executor } => export::run(&input, &output, executor.as_deref()),
        Command::Declare { file, network } => declare::run(&file, network.as_deref(), output),
        Command::Diff { left, right, tolerance, types } => diff::run(&left, &right, tolerance, types, output),
        Command::Rename { input, output, rules, allow_loss } => {
            convert::rename(&input, &output, &rules, allow_loss)
        }
        Command::Layers { names, json } => layers::run(&names, json, output),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "layerfn", output);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            let page = manual(command.as_deref())?;
            clap_mangen::Man::new(page).render(output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a manual page is made of.
fn manual(command: Option<&str>) -> Result<clap::Command, String> {
    let mut program = Arguments::command();
    program.build();
    let Some(name) = command else { return Ok(program) };
    program.find_subcommand(name).cloned().ok_or_else(|| format!("no command `{name}`"))
}
