//! Executors: a network with the inputs and outputs that the file names.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::graph::Graph;
use super::initial::multiples;
use super::network::GraphModel;
use super::run::{FirstValues, Plan};
use super::{Fault, network};
use crate::checkpoint::definition::Message;
use crate::limits::brief;
use crate::{Error, Initializer, ParameterStore, Result, check, no_grad};

/// An executor of a network file: which inputs are given as data, which ones are generated, and which values
/// are returned.
///
/// Made by [`Nnp::executor`](super::Nnp::executor), with its own [`Model`](crate::Model), which running
/// statistics and other values that functions write are stored in.
///
/// ```no_run
/// use layerfn::{nnp::Nnp, prelude::*};
///
/// let executor = Nnp::open("mnist.nnp")?.executor("runtime")?;
/// let x = Tensor::zeros((1, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// let [y] = &executor.run(&[x])?[..] else { panic!("this network has one output") };
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone)]
pub struct Executor {
    name: String,
    plan: Arc<Plan>,
    model: GraphModel,
    /// For each input that the network needs, what fills it.
    sources: Vec<Source>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    n_evaluations: usize,
    repeat: Repeat,
}

#[derive(Clone, Debug)]
enum Source {
    /// The tensor that is given at this place.
    Data(usize),
    Generator {
        rule: Generator,
        multiplier: f64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Generator {
    Constant,
    Normal,
    Uniform,
    Range,
}

/// What is made of several evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Mean,
    Std,
    Last,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor by its definition, with a model of `graph`.
    pub(super) fn new(setup: Setup) -> Result<Self> {
        let Setup { name, plan, sources, read, n_evaluations } = setup;
        let model = network::model(&plan)?;
        let (inputs, outputs, repeat) = (read.inputs, read.names, read.repeat);
        Ok(Self { name, plan, model, sources, inputs, outputs, n_evaluations, repeat })
    }

    /// The name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the data, in the order in which [`run`](Self::run) takes them.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(String::as_str)
    }

    /// The names of the outputs, in the order in which [`run`](Self::run) returns them.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(String::as_str)
    }

    /// The network as a model, with the parameters that the executor uses. Its inputs are those of the network,
    /// including generated ones.
    #[must_use]
    pub fn model(&self) -> &GraphModel {
        &self.model
    }

    /// The executor with copies of the parameters on `device`.
    ///
    /// # Errors
    /// As [`Model::to_device`](crate::Model::to_device).
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { model: self.model.to_device(device)?, ..self.clone() })
    }

    /// Runs the network without gradients and returns the outputs. A tensor that has the same number of
    /// elements as its variable but another shape is reshaped. The network runs `num_evaluations` times, each
    /// time with newly generated inputs, and the result is the mean, the standard deviation or the last of the
    /// outputs.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number or the shapes of the tensors do not match the
    /// [`inputs`](Self::inputs), and those of the functions, which say where they occurred.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if inputs.len() != self.inputs.len() {
            let reason = format!("must hold a tensor for each of {:?}", self.inputs);
            return Err(Error::invalid("inputs", reason, inputs.len()));
        }
        let batch = self.batch(inputs)?;
        let mut evaluations = Evaluations::new(self.repeat, self.n_evaluations);
        for _ in 0..self.n_evaluations {
            let fed = self.fed(inputs, batch)?;
            evaluations.add(no_grad(|| self.model.forward(&fed))?)?;
        }
        evaluations.finish()
    }

    /// The size of the batch that the data have.
    fn batch(&self, inputs: &[Tensor]) -> Result<usize> {
        if let Some(batch) = self.plan.batch_size {
            return Ok(batch);
        }
        for (value, source) in self.plan.values(&self.plan.inputs).zip(&self.sources) {
            let Source::Data(place) = source else { continue };
            let sizes = value.entering();
            let elements = inputs[*place].elem_count();
            let (mut fixed, mut n_open) = (1usize, 0);
            for &size in sizes {
                match usize::try_from(size) {
                    Ok(size) if size > 0 => fixed = fixed.saturating_mul(size),
                    _ => n_open += 1,
                }
            }
            if n_open == 1 && elements.is_multiple_of(fixed) {
                return Ok(elements / fixed);
            }
            if n_open > 1 && sizes.len() == inputs[*place].rank() {
                let open = sizes.iter().position(|&size| size < 1).unwrap_or(0);
                return Ok(inputs[*place].dims()[open]);
            }
        }
        Ok(self.plan.declared_batch())
    }

    /// What the inputs of the network get.
    fn fed(&self, inputs: &[Tensor], batch: usize) -> Result<Vec<Tensor>> {
        let device = inputs.first().map_or(&Device::Cpu, Tensor::device);
        self.plan
            .values(&self.plan.inputs)
            .zip(&self.sources)
            .map(|(value, source)| {
                let dims: Vec<_> = value
                    .entering()
                    .iter()
                    .map(|&size| usize::try_from(size).ok().filter(|&size| size > 0).unwrap_or(batch))
                    .collect();
                match source {
                    Source::Data(place) if inputs[*place].dims() == dims => Ok(inputs[*place].clone()),
                    Source::Data(place) => {
                        let given = &inputs[*place];
                        if given.elem_count() != check::count("inputs", &dims)? {
                            let name = &self.inputs[*place];
                            let reason = format!("must have the size of the shape {dims:?} for `{name}`");
                            return Err(Error::invalid("inputs", reason, given.dims()));
                        }
                        Ok(given.reshape(dims)?)
                    }
                    Source::Generator { rule, multiplier } => {
                        Ok(rule.generate(&dims, *multiplier, self.model.store())?.to_device(device)?)
                    }
                }
            })
            .collect()
    }
}

/// All that an executor is made of but its parameters.
pub(super) struct Setup {
    name: String,
    plan: Arc<Plan>,
    sources: Vec<Source>,
    read: Read,
    n_evaluations: usize,
}

impl Setup {
    pub(super) fn new(
        definition: &Message,
        graph: &Arc<Graph>,
        initial: &Arc<FirstValues>,
        batch_size: Option<usize>,
    ) -> Result<Self, Fault> {
        let read = Read::new(definition, graph)?;
        let plan = Arc::new(Plan::new(graph, read.outputs.clone(), batch_size, initial));
        let sources = plan.inputs.iter().map(|&input| read.source(input, graph)).collect::<Result<_, _>>()?;
        let n_evaluations = usize::try_from(definition.integer("num_evaluations")).unwrap_or(0).max(1);
        Ok(Self { name: definition.text("name").to_owned(), plan, sources, read, n_evaluations })
    }
}

/// What the definition of an executor says.
struct Read {
    /// Names of data, each once.
    inputs: Vec<String>,
    /// Data by the place of their name, and the values that they fill.
    data: Vec<(usize, usize)>,
    generators: Vec<(usize, Generator, f64)>,
    outputs: Vec<usize>,
    names: Vec<String>,
    repeat: Repeat,
}

impl Read {
    fn new(definition: &Message, graph: &Graph) -> Result<Self, Fault> {
        let place = |name: &str| {
            graph.place(name).ok_or_else(|| {
                Fault::new(format!("names `{}`, which its network does not have", brief(name)))
            })
        };
        let data_name = |of: &Message| match of.text("data_name") {
            "" => of.text("variable_name").to_owned(),
            name => name.to_owned(),
        };
        let (mut inputs, mut data, mut generators) = (Vec::new(), Vec::new(), Vec::new());
        let (mut outputs, mut names) = (Vec::new(), Vec::new());
        for variable in definition.messages("data_variable") {
            let name = data_name(variable);
            let known = inputs.iter().position(|input| *input == name);
            data.push((known.unwrap_or(inputs.len()), place(variable.text("variable_name"))?));
            if known.is_none() {
                inputs.push(name);
            }
        }
        for variable in definition.messages("generator_variable") {
            let rule = Generator::named(variable.text("type"))?;
            generators.push((place(variable.text("variable_name"))?, rule, variable.number("multiplier")));
        }
        for variable in definition.messages("output_variable") {
            outputs.push(place(variable.text("variable_name"))?);
            names.push(data_name(variable));
        }
        for variable in definition.messages("parameter_variable") {
            let name = variable.text("variable_name");
            if !graph.values.iter().any(|value| value.parameter.is_some() && is_round_of(name, &value.name)) {
                place(name)?;
            }
        }
        let repeat = match definition.text("repeat_evaluation_type") {
            "std" => Repeat::Std,
            "last" => Repeat::Last,
            _ => Repeat::Mean,
        };
        Ok(Self { inputs, data, generators, outputs, names, repeat })
    }

    /// What fills the value at this place.
    fn source(&self, place: usize, graph: &Graph) -> Result<Source, Fault> {
        if let Some((given, _)) = self.data.iter().find(|(_, filled)| *filled == place) {
            return Ok(Source::Data(*given));
        }
        let generator = self.generators.iter().find(|(filled, ..)| *filled == place);
        generator.map(|&(_, rule, multiplier)| Source::Generator { rule, multiplier }).ok_or_else(|| {
            Fault::new(format!(
                "fills `{}` neither with data nor by a generator",
                brief(&graph.values[place].name)
            ))
        })
    }
}

/// Whether `name` is that of `pattern`, in which `{..}` stands for a number in brackets.
fn is_round_of(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    while let Some(open) = pattern.find('{') {
        let Some(close) = pattern[open..].find('}') else { break };
        let Some(rest) = name.strip_prefix(&pattern[..open]).and_then(|rest| rest.strip_prefix('[')) else {
            return false;
        };
        let Some(end) = rest.find(']').filter(|&end| end > 0) else { return false };
        if !rest[..end].bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        (pattern, name) = (&pattern[open + close + 1..], &rest[end + 1..]);
    }
    pattern == name
}

impl Generator {
    fn named(name: &str) -> Result<Self, Fault> {
        Ok(match name {
            "Constant" => Self::Constant,
            "Normal" => Self::Normal,
            "Uniform" => Self::Uniform,
            "Range" => Self::Range,
            other => {
                let reason =
                    format!("has a generator {other:?}; there are Constant, Normal, Uniform and Range");
                return Err(Fault::new(reason));
            }
        })
    }

    fn generate(self, dims: &[usize], multiplier: f64, store: &ParameterStore) -> Result<Tensor> {
        let initializer = match self {
            Self::Range => return multiples(dims, multiplier),
            Self::Constant => Initializer::constant(multiplier),
            Self::Normal => Initializer::normal(multiplier),
            Self::Uniform => Initializer::uniform(-multiplier, multiplier),
        };
        check::tensor("shape", dims, DType::F32)?;
        let rng = store.rng();
        initializer.with_rng(&rng).generate(dims, DType::F32, &Device::Cpu, || rng.clone())
    }
}

/// The outputs of one evaluation after the other.
struct Evaluations {
    repeat: Repeat,
    n: usize,
    sums: Vec<Tensor>,
    squares: Vec<Tensor>,
}

impl Evaluations {
    fn new(repeat: Repeat, n: usize) -> Self {
        let repeat = if n == 1 && repeat == Repeat::Mean { Repeat::Last } else { repeat };
        Self { repeat, n, sums: Vec::new(), squares: Vec::new() }
    }

    fn add(&mut self, outputs: Vec<Tensor>) -> Result<()> {
        if self.repeat == Repeat::Last {
            self.sums = outputs;
            return Ok(());
        }
        let add = |sums: &mut Vec<Tensor>, values: Vec<Tensor>| -> Result<()> {
            *sums = match &sums[..] {
                [] => values,
                sums => sums.iter().zip(&values).map(|(a, b)| Ok((a + b)?)).collect::<Result<_>>()?,
            };
            Ok(())
        };
        let outputs =
            outputs.iter().map(|output| Ok(output.to_dtype(DType::F64)?)).collect::<Result<Vec<_>>>()?;
        if self.repeat == Repeat::Std {
            add(&mut self.squares, outputs.iter().map(|output| Ok(output.sqr()?)).collect::<Result<_>>()?)?;
        }
        add(&mut self.sums, outputs)
    }

    fn finish(self) -> Result<Vec<Tensor>> {
        let n = self.n as f64;
        let of = |sum: &Tensor, square: Option<&Tensor>| -> Result<Tensor> {
            let mean = (sum / n)?;
            let found = match square {
                Some(square) => ((square / n)? - mean.sqr()?)?.maximum(0.0)?.sqrt()?,
                None => mean,
            };
            Ok(found.to_dtype(DType::F32)?)
        };
        match self.repeat {
            Repeat::Last => Ok(self.sums),
            Repeat::Mean => self.sums.iter().map(|sum| of(sum, None)).collect(),
            Repeat::Std => {
                self.sums.iter().zip(&self.squares).map(|(sum, square)| of(sum, Some(square))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_round_of;

    #[test]
    fn braces_stand_for_a_round() {
        assert!(is_round_of("a", "a"));
        assert!(is_round_of("b{R}/W", "b[12]/W"));
        assert!(is_round_of("b{R}{Q}", "b[1][0]"));
        assert!(!is_round_of("b{R}/W", "b/W"));
        assert!(!is_round_of("b{R}/W", "b[x]/W"));
        assert!(!is_round_of("b{R}/W", "b[1]/V"));
    }
}
