//! The `mnist` program, as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn mnist(arguments: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_mnist")).args(arguments))
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn a_smoke_run_trains_saves_and_draws() {
    let dir = TempDir::new().unwrap();
    let output = mnist(&["--smoke", "--out", dir.path().to_str().unwrap()]);
    let text = stdout(&output);
    let last = text.lines().last().unwrap();
    let accuracy = last.strip_prefix("test accuracy: ").and_then(|rest| rest.strip_suffix(" %")).unwrap();
    let digits: Vec<usize> = accuracy.split('.').map(str::len).collect();
    assert_eq!(digits, [2, 2], "{last}");
    assert!(text.contains("epoch  1/1 "), "{text}");
    for file in ["lenet.h5", "lenet.safetensors", "learning_curve.svg", "mistakes.svg", "report.html"] {
        assert!(dir.path().join(file).metadata().is_ok_and(|file| file.len() > 1_000), "{file}");
    }
    // No bar where there is no terminal.
    assert!(!stderr(&output).contains('━'), "{}", stderr(&output));
}

#[test]
fn equal_seeds_print_the_same_whatever_the_number_of_threads() {
    let dir = TempDir::new().unwrap();
    let with = |threads: &str, seed: &str| {
        let out = dir.path().join(threads);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mnist"));
        command.args(["--smoke", "--seed", seed, "--out"]).arg(&out).env("RAYON_NUM_THREADS", threads);
        let text = stdout(&run(&mut command)).replace(out.to_str().unwrap(), "OUT");
        (text, std::fs::read(out.join("lenet.safetensors")).unwrap())
    };
    let (text, model) = with("1", "7");
    for threads in ["2", "3"] {
        let (other_text, other_model) = with(threads, "7");
        assert_eq!(text, other_text, "{threads} threads");
        assert!(model == other_model, "another model with {threads} threads");
    }
    assert_ne!(text, with("2", "8").0);
}

#[cfg(unix)]
#[test]
fn a_training_that_was_stopped_goes_on_to_the_same_weights() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let dir = TempDir::new().unwrap();
    let command = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mnist"));
        command.args(["--smoke", "--epochs", "4", "--out"]).arg(dir.path().join(out));
        command
    };
    stdout(&run(&mut command("whole")));

    let mut child = command("stopped").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("epoch  2/4")));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.last().unwrap().ends_with("steps; the same command goes on"), "{rest:?}");

    let other = run(command("stopped").args(["--seed", "2"]));
    let wanted = "`options` must be those of the training that was stopped, or have --fresh to start anew";
    assert!(stderr(&other).contains(wanted), "{}", stderr(&other));
    let text = stdout(&run(&mut command("stopped")));
    assert!(text.starts_with("goes on after "), "{text}");
    for file in ["lenet.safetensors", "lenet.h5", "monitor/scalars.csv", "monitor/training-loss.series.txt"] {
        let read = |out: &str| std::fs::read(dir.path().join(out).join(file)).unwrap();
        assert!(read("whole") == read("stopped"), "{file}");
    }
    assert!(!dir.path().join("stopped/state").exists());
}

#[test]
fn what_cannot_be_done_is_said_without_a_panic() {
    let output = mnist(&["--epoch", "3"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unexpected argument '--epoch' found"), "{}", stderr(&output));

    let output = mnist(&["--data", "no/such/place"]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.starts_with("error: cannot read `no/such/place/train-images-idx3-ubyte`: "), "{message}");

    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let output = mnist(&["--smoke", "--out", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with(&format!("error: `{}`: ", file.display())), "{}", stderr(&output));

    assert!(stdout(&mnist(&["--help"])).contains("--data <DIR>"));
}

#[test]
fn the_full_set_is_read_from_a_directory() {
    let (data, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
    for part in ["train", "t10k"] {
        for kind in ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"] {
            let to = data.path().join(format!("{part}-{kind}"));
            std::fs::copy(built_in.join(format!("t10k-{kind}")), to).unwrap();
        }
    }
    let arguments =
        ["--smoke", "--data", data.path().to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    assert!(stdout(&mnist(&arguments)).contains("test accuracy: "));
    let labels = data.path().join("t10k-labels-idx1-ubyte.gz");
    std::fs::write(&labels, "<html>404</html>").unwrap();
    let output = mnist(&arguments);
    assert!(stderr(&output).contains(&format!("`{}`: starts with 0x3c68746d", labels.display())));
}
