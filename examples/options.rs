//! The command line of the `mnist` program.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
Trains LeNet on handwritten digits.

Usage: mnist [OPTIONS]

Options:
  --data DIR   Read the full MNIST set from DIR: the four IDX files train-images-idx3-ubyte,
               train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain
               or with .gz. Without it: the 10,000 digits built in, 8,000 to train, 2,000 to test.
  --epochs N   Passes over the training digits [default: 10]
  --seed N     Seed of initial values, order and shifts; equal seeds give equal results [default: 1]
  --out DIR    Where models and pictures go [default: target/mnist]
  --smoke      A run of a second that shows that everything works: few digits, one epoch
  --help       Print this
";

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory of the full set; the digits built in without it.
    pub data: Option<PathBuf>,
    /// Passes over the training digits.
    pub epochs: usize,
    /// Seed of everything random.
    pub seed: u32,
    /// Where models and pictures go.
    pub out: PathBuf,
    /// Few digits, to see that everything works.
    pub smoke: bool,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Train with these options.
    Train(Options),
    /// Print the help.
    Help,
}

impl Command {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    /// A text that says which argument is wrong and what would be right.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut epochs = None;
        let mut options =
            Options { data: None, epochs: 0, seed: 1, out: PathBuf::from("target/mnist"), smoke: false };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (flag, mut inline) = split(&argument);
            let mut value = |meaning: &str| {
                inline
                    .take()
                    .or_else(|| arguments.next())
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| format!("`{flag}` needs {meaning} after it"))
            };
            match flag.as_str() {
                "--data" => options.data = Some(value("a directory")?.into()),
                "--out" => options.out = value("a directory")?.into(),
                "--epochs" => epochs = Some(number(&flag, &value("a number")?, 1, 10_000)? as usize),
                "--seed" => options.seed = number(&flag, &value("a number")?, 0, u32::MAX)?,
                "--smoke" => options.smoke = true,
                "--help" | "-h" => return Ok(Self::Help),
                _ => return Err(unknown(&flag)),
            }
            if let Some(value) = inline {
                return Err(format!("`{flag}` takes no value, got `{}`", value.display()));
            }
        }
        options.epochs = epochs.unwrap_or(if options.smoke { 1 } else { 10 });
        Ok(Self::Train(options))
    }
}

/// `--flag=value` as its two parts.
fn split(argument: &OsStr) -> (String, Option<OsString>) {
    match argument.to_str().and_then(|text| text.split_once('=')) {
        Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.into())),
        _ => (argument.to_string_lossy().into_owned(), None),
    }
}

fn number(flag: &str, value: &OsStr, least: u32, most: u32) -> Result<u32, String> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        format!("`{flag}` needs a whole number from {least} to {most}, got `{}`", value.display())
    })
}

fn unknown(argument: &str) -> String {
    format!(
        "unknown argument `{argument}`, expected one of `--data`, `--epochs`, `--seed`, `--out`, `--smoke`, `--help`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        Command::parse(arguments.iter().map(OsString::from))
    }

    fn options(arguments: &[&str]) -> Options {
        match parse(arguments) {
            Ok(Command::Train(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_arguments_the_built_in_digits_are_learned() {
        let options = options(&[]);
        assert_eq!((options.data, options.epochs, options.seed, options.smoke), (None, 10, 1, false));
        assert_eq!(options.out, PathBuf::from("target/mnist"));
    }

    #[test]
    fn values_follow_their_flag_or_an_equals_sign() {
        let apart = options(&["--data", "a dir", "--epochs", "3", "--seed", "0", "--out", "x=y", "--smoke"]);
        let joined = options(&["--data=a dir", "--epochs=3", "--seed=0", "--out=x=y", "--smoke"]);
        assert_eq!(apart, joined);
        assert_eq!((apart.epochs, apart.seed, apart.smoke), (3, 0, true));
        assert_eq!(apart.out, PathBuf::from("x=y"));
    }

    #[test]
    fn a_smoke_run_has_one_epoch_unless_told() {
        assert_eq!(options(&["--smoke"]).epochs, 1);
        assert_eq!(options(&["--epochs", "2", "--smoke"]).epochs, 2);
    }

    #[test]
    fn help_wins() {
        assert_eq!(parse(&["--seed", "3", "--help"]), Ok(Command::Help));
    }

    #[test]
    fn wrong_arguments_are_explained() {
        let text = |arguments: &[&str]| parse(arguments).unwrap_err();
        assert_eq!(
            text(&["--epoch", "3"]),
            "unknown argument `--epoch`, expected one of `--data`, `--epochs`, `--seed`, `--out`, `--smoke`, `--help`"
        );
        assert!(text(&["mnist"]).starts_with("unknown argument `mnist`"));
        assert_eq!(text(&["--data"]), "`--data` needs a directory after it");
        assert_eq!(text(&["--out="]), "`--out` needs a directory after it");
        assert_eq!(text(&["--epochs", "0"]), "`--epochs` needs a whole number from 1 to 10000, got `0`");
        assert_eq!(text(&["--seed", "-1"]), "`--seed` needs a whole number from 0 to 4294967295, got `-1`");
        assert_eq!(text(&["--smoke=yes"]), "`--smoke` takes no value, got `yes`");
    }
}
