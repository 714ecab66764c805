//! One model that answers many requests at once, on tokio, as a server of axum's does.
//!
//! Run with `cargo run --release --bin serve`. A handler must not compute while it holds tokio's thread, so the network runs
//! in `spawn_blocking`, on a thread that has entered no store. A [`Model`] has its parameters with it. A network over the
//! current store has not: a [`Context`] brings store, scope and mode along.

use std::error::Error;

use layerfn::Context;
use layerfn::prelude::*;
use tokio::task::{JoinSet, spawn_blocking};

/// What the handlers share, axum's `State`: a clone is another handle to the same parameters.
#[derive(Clone)]
struct App {
    model: Model,
    network: Network,
    context: Context,
}

type Fault = Box<dyn Error + Send + Sync>;

type Answer = Result<Vec<f32>, Fault>;

/// A handler that has a model.
async fn by_model(app: App, request: Vec<f32>) -> Answer {
    let answer = spawn_blocking(move || values(&app.model.forward_t(&row(&request)?, false)?)).await?;
    Ok(answer?)
}

/// A handler that has a network, and the context in which it was trained.
async fn by_context(app: App, request: Vec<f32>) -> Answer {
    let run = move || app.context.enter(|| values(&app.network.forward(&row(&request)?)?));
    Ok(spawn_blocking(run).await??)
}

/// A handler that forgets the context: there is no answer, rather than one of parameters that nobody trained.
async fn by_nothing(app: App, request: Vec<f32>) -> Answer {
    Ok(spawn_blocking(move || values(&app.network.forward(&row(&request)?)?)).await??)
}

fn row(request: &[f32]) -> Result<Tensor> {
    Ok(Tensor::new(request, &Device::Cpu)?.unsqueeze(0)?)
}

fn values(y: &Tensor) -> Result<Vec<f32>> {
    Ok(y.flatten_all()?.to_vec1()?)
}

fn main() -> Result<(), Fault> {
    let network = network! { affine(16) -> bn -> relu -> dropout -> affine(3) -> softmax(1) }.boxed();
    // `load` would bring trained parameters in.
    let model = network.init((1, 4))?;
    let context = model.store().enter(|| test_mode(Context::current));
    let app = App { model, network, context };
    // axum's runtime has a thread for each processor; what a handler does is the same.
    tokio::runtime::Builder::new_current_thread().build()?.block_on(serve(&app))
}

async fn serve(app: &App) -> Result<(), Fault> {
    let mut answers = JoinSet::new();
    for i in 0..64 {
        let (app, request) = (app.clone(), [1.0, 2.0, 3.0, i as f32].to_vec());
        answers.spawn(async move {
            (by_model(app.clone(), request.clone()).await, by_context(app, request).await)
        });
    }
    let mut n_same = 0;
    while let Some(pair) = answers.join_next().await {
        let (of_model, of_context) = pair?;
        n_same += usize::from(of_model? == of_context?);
    }
    println!("{n_same} of 64 requests have one answer from the model and from the context");
    if let Err(error) = by_nothing(app.clone(), vec![0.0; 4]).await {
        println!("without a context: {error}");
    }
    Ok(())
}
