//! Parts of a training loop besides the solver: accumulation of gradients, averages of weights, loss scaling, guards, and the
//! whole state of a training in one file.
//!
//! You write the loop. A training that is killed and started again resumes with the same bits:
//!
//! ```
//! use layerfn::{prelude::*, solver::{Adam, schedule}, training::{StateFiles, TrainState, WeightAverage}};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let net = network! { affine(16) -> relu -> dropout -> out: affine(2) };
//! let model = net.init((4, 3))?;
//! let mut solver = Adam::new(1e-2).schedule(schedule::warmup(5).cosine(20));
//! solver.set_parameters(&model.parameters());
//! let mut average = WeightAverage::new(&model.parameters(), 0.9)?;
//! let order = Rng::new(7);
//! let mut step = 0u64;
//!
//! let files = StateFiles::new(folder, "safetensors").keep(3);
//! files.resume(
//!     &mut TrainState::new()
//!         .with("model", &model)
//!         .with("solver", &mut solver)
//!         .with("average", &mut average)
//!         .with("order", &order)
//!         .with("step", &mut step),
//! )?;
//! while step < 20 {
//!     let x = Tensor::new(order.uniform() as f32, &Device::Cpu)?.broadcast_as((4, 3))?;
//!     let loss = model.forward(&x)?.sqr()?.mean_all()?;
//!     solver.update(&backward(loss)?)?;
//!     average.update()?;
//!     step += 1;
//!     if step % 5 == 0 {
//!         let at = step;
//!         let state = TrainState::new()
//!             .with("model", &model)
//!             .with("solver", &mut solver)
//!             .with("average", &mut average)
//!             .with("order", &order)
//!             .with("step", &mut step);
//!         files.save(&state, at)?;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accumulate;
mod average;
mod doctor;
mod files;
mod guard;
mod parallel;
mod part;
mod scaler;
mod state;
mod stopping;

pub use accumulate::Accumulator;
pub use average::WeightAverage;
pub use doctor::Doctor;
pub use files::StateFiles;
pub use guard::NanGuard;
pub use parallel::{DataParallel, ParallelStep};
pub use part::{Part, gather, scatter};
pub use scaler::LossScaler;
pub use state::{Source, TrainState};
pub use stopping::{EarlyStopping, Progress};
