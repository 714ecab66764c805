//! A language model of characters: gated recurrent units that learn to go on with a text.
//!
//! Run with `cargo run --release --bin characters`. It reads the documentation of this project again and again, piece by
//! piece, and takes the states from one piece to the next, without their gradients: truncated backpropagation through
//! time. At the end it writes a text of its own. The pictures of the network and of the loss lie in `target/characters/`.

use std::error::Error;
use std::path::Path;

use layerfn::prelude::*;
use layerfn::solver::Adam;
use layerfn_examples::pictures::{History, loss_curve};

const TEXT: &str = concat!(include_str!("../ARCHITECTURE.md"), include_str!("../CONTRIBUTING.md"));

/// Parts of the text that are read side by side, and characters of each in a piece.
const STREAMS: usize = 16;
const STEPS: usize = 40;

const LAYERS: usize = 2;
const LEARNING_RATE: f64 = 3e-3;

/// Below 1, probable characters become more so when a text is written.
const TEMPERATURE: f64 = 0.6;

fn main() -> Result<(), Box<dyn Error>> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (epochs, units) = if smoke { (3, 48) } else { (60, 160) };
    let text = Text::new(TEXT);
    let n_chars = text.chars.len();

    // Takes characters (steps, streams) and states; gives scores for the characters that follow, and the last states.
    let network = network! {
        move |text, h|
        < embed(n_chars, 24) -> gru(h, dropout = 0.1) as states
       -> use(&states.0) -> out: affine(n_chars, base_axis = 2) as scores
       -> use((scores, &states.1)) >
    };
    let states = Tensor::zeros((LAYERS, 1, STREAMS, units), DType::F32, &Device::Cpu)?;
    let model = network.init(&text.piece(0)?.0, &states)?;
    println!("{} characters, {n_chars} of them different", text.ids.len());
    println!("{} parameters", model.parameters().elem_count());

    let history = train(&model, &text, &states, epochs)?;
    println!("\n{}\n", write(&model, &text, &states.narrow(2, 0, 1)?, "The ", 300)?);

    let dir = Path::new("target/characters");
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("network.svg"), model.summary()?.to_svg())?;
    loss_curve(&dir.join("loss.svg"), &history)?;
    println!("pictures: {}", dir.display());
    Ok(())
}

fn train<F>(
    model: &Model<F, 2>,
    text: &Text,
    zeros: &Tensor,
    epochs: usize,
) -> Result<History, Box<dyn Error>>
where
    F: Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>,
{
    let mut solver = Adam::new(LEARNING_RATE);
    solver.set_parameters(&model.parameters());
    let mut history = History::default();
    for epoch in 1..=epochs {
        let mut h = zeros.clone();
        for piece in 0..text.n_pieces() {
            let (chars, next) = text.piece(piece)?;
            let (scores, after) = model.forward(&chars, &h)?;
            h = after.detach();
            let loss = mean_softmax_cross_entropy(&scores, &next, 2)?;
            history.losses.push(loss.to_scalar()?);
            solver.update(&backward(loss)?)?;
        }
        let losses = &history.losses[(epoch - 1) * text.n_pieces()..];
        let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
        history.epochs.push((mean, 0.0));
        if epoch % 10 == 0 || epoch == epochs {
            println!("epoch {epoch:2}/{epochs}   {:.2} bits a character", mean / std::f64::consts::LN_2);
        }
    }
    Ok(history)
}

/// Goes on with `start`: one character after the other, each drawn by its probability.
fn write<F>(
    model: &Model<F, 2>,
    text: &Text,
    zeros: &Tensor,
    start: &str,
    n_chars: usize,
) -> Result<String, Box<dyn Error>>
where
    F: Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>,
{
    let (rng, mut written, mut h) = (Rng::new(1), start.to_owned(), zeros.clone());
    let mut unread = text.ids_of(start)?;
    for _ in 0..n_chars {
        let (scores, after) = no_grad(|| model.forward_t(&unread, &h, false))?;
        let last = scores.get(scores.dim(0)? - 1)?.get(0)?;
        let probabilities = softmax(&(last / TEMPERATURE)?, 0)?.to_vec1::<f32>()?;
        let mut left = rng.uniform() as f32;
        let passed = probabilities.iter().take_while(|&&p| {
            left -= p;
            left >= 0.0
        });
        let drawn = text.chars[passed.count().min(text.chars.len() - 1)];
        written.push(drawn);
        unread = text.ids_of(&drawn.to_string())?;
        h = after;
    }
    Ok(written)
}

/// A text as numbers, in streams that are read side by side.
struct Text {
    chars: Vec<char>,
    ids: Vec<u32>,
}

impl Text {
    fn new(text: &str) -> Self {
        let mut chars: Vec<char> = text.chars().collect();
        chars.sort_unstable();
        chars.dedup();
        let ids = text.chars().filter_map(|c| chars.binary_search(&c).ok()).map(|id| id as u32).collect();
        Self { chars, ids }
    }

    /// Characters as `(steps, 1)`.
    fn ids_of(&self, text: &str) -> Result<Tensor, Box<dyn Error>> {
        let id = |c: char| self.chars.binary_search(&c).map_err(|_| format!("the text has no {c:?}"));
        let ids = text.chars().map(|c| Ok(id(c)? as u32)).collect::<Result<Vec<u32>, String>>()?;
        Ok(Tensor::from_vec(ids, (text.chars().count(), 1), &Device::Cpu)?)
    }

    fn n_pieces(&self) -> usize {
        (self.ids.len() / STREAMS - 1) / STEPS
    }

    /// The characters of a piece, `(steps, streams)`, and those that follow each of them.
    fn piece(&self, piece: usize) -> Result<(Tensor, Tensor)> {
        let at =
            |step: usize, stream: usize| self.ids[stream * (self.ids.len() / STREAMS) + piece * STEPS + step];
        let from = |first: usize| {
            let ids = (0..STEPS).flat_map(|step| (0..STREAMS).map(move |stream| at(first + step, stream)));
            Tensor::from_iter(ids, &Device::Cpu)?.reshape((STEPS, STREAMS))
        };
        Ok((from(0)?, from(1)?))
    }
}
