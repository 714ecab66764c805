//! Checks ranks that are processes of MPI; `.ci/mpi` runs it.
//!
//! `mpirun -n 3 mpi_check collectives 1001` checks all operations on tensors of about so many elements.
//! `mpirun -n 3 mpi_check train` prints the checksums of trainings; `mpi_check train 2`, on threads, prints the same ones.
//! `mpirun -n 2 mpi_check messages` times messages there and back.

use std::error::Error;
use std::hash::{DefaultHasher, Hasher};
use std::process::ExitCode;
use std::time::Instant;

use candle_core::{DType, Device};
use layerfn::communicator::{Communicator, Local, Mpi, Transport};
use layerfn_tests::support::collectives;
use layerfn_tests::support::parallel::{self, Way};

/// Steps of a training.
const STEPS: u64 = 6;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    match *arguments {
        ["collectives", n] => Ok(collectives(&Mpi::new()?.communicator(), n.parse()?)?),
        ["train"] => Ok(train(&Mpi::new()?.communicator())?),
        ["train", ranks] => {
            Local::new(ranks.parse()?).run(|communicator| train(&communicator))?;
            Ok(())
        }
        ["messages"] => Ok(messages(&Mpi::new()?)?),
        _ => Err("expected `collectives N`, `train`, `train RANKS` or `messages`".into()),
    }
}

fn collectives(communicator: &Communicator, n: usize) -> layerfn::Result<()> {
    for dtype in [DType::F32, DType::F64] {
        collectives::check(communicator, n, dtype, &Device::Cpu)?;
    }
    if communicator.rank() == 0 {
        println!("{} ranks, {n} elements: as defined", communicator.size());
    }
    Ok(())
}

/// Trains in every way. Sums in any order end with equal parameters on all ranks, or with an error; what they are depends on the
/// number of ranks.
fn train(communicator: &Communicator) -> layerfn::Result<()> {
    let print = |name: &str, state: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(state);
        if communicator.rank() == 0 {
            println!("{name} {:016x}", hasher.finish());
        }
    };
    for (name, way) in [("in order", Way::OneByOne), ("together", Way::Together)] {
        print(name, &parallel::train(communicator, way, 0..STEPS, None)?);
        let half = parallel::train(communicator, way, 0..STEPS / 2, None)?;
        print(name, &parallel::train(communicator, way, STEPS / 2..STEPS, Some(&half))?);
    }
    for bytes in [0, 200, 1 << 40] {
        print("in order", &parallel::train(communicator, Way::Packs(bytes), 0..STEPS, None)?);
    }
    parallel::train(communicator, Way::Fast, 0..STEPS, None)?;
    Ok(())
}

/// Times messages from rank 0 to rank 1 and back.
fn messages(mpi: &Mpi) -> layerfn::Result<()> {
    if mpi.size() != 2 {
        return Err(layerfn::Error::invalid("ranks", "must be 2", mpi.size()));
    }
    for (n, times) in
        [(8, 2000), (1 << 10, 2000), (1 << 16, 1000), (1 << 20, 200), (1 << 22, 100), (1 << 26, 10)]
    {
        let mut microseconds = Vec::new();
        for _ in 0..times {
            let message = vec![1; n];
            let begun = Instant::now();
            let back = if mpi.rank() == 0 {
                mpi.send(1, message)?;
                mpi.receive(1)?
            } else {
                let message = mpi.receive(0)?;
                mpi.send(0, message)?;
                continue;
            };
            microseconds.push(begun.elapsed().as_secs_f64() * 1e6 / 2.0);
            assert_eq!(back.len(), n, "bytes");
        }
        microseconds.sort_by(f64::total_cmp);
        if let (Some(least), Some(median)) = (microseconds.first(), microseconds.get(times / 2)) {
            let speed = n as f64 / median / 1e3;
            println!("{n} bytes: {median:.1} us one way, at least {least:.1} us, {speed:.3} GB/s");
        }
    }
    Ok(())
}
