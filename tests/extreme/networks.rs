//! Networks and models: made, run, described, frozen, copied and saved.

use candle_core::{DType, Device, Tensor};
use layerfn::prelude::*;
use layerfn::solver::Sgd;
use layerfn::{Example, Result, recur, recur_from};

use crate::draw::Draw;
use crate::files::bits_of_store;
use crate::{Call, Outcome, fault};

pub(crate) const CALLS: &[(&str, Call)] = &[
    ("network", network),
    ("network", network),
    ("model", model),
    ("model", model),
    ("model of two", model_of_two),
    ("recur", recurrent),
];

impl Draw {
    /// A network of one input, with arguments of any kind.
    fn network(&mut self) -> Network {
        let (n, kernel, axis, label) = (self.size(), self.window(), self.size(), self.text());
        let (p, index) = (self.rate(), self.size());
        let kind = self.below(6);
        self.note(format!("network {kind}"));
        match kind {
            0 => network! { move affine(n) -> relu -> affine(3) }.boxed(),
            1 => network! { move conv(n, kernel.clone()) -> bn -> relu -> max_pool(kernel.clone()) -> affine(2) }.boxed(),
            2 => network! { move residual { affine(n) } -> concat(axis) { _, affine(2) } -> softmax(axis) }.boxed(),
            3 => network! { move frozen first[index]: { affine(3) -> bn } -> affine(n, name = label.clone()) }.boxed(),
            4 => network! { move mul { _, gate: affine(n) -> sigmoid } -> dropout(p = p) -> add { _, relu } }.boxed(),
            _ => network! { move recur(axis, n, |x, h, c| lstm(x, h, c, n)) -> affine(2) }.boxed(),
        }
    }

    /// What a network is described by: shapes as they come.
    fn shape(&mut self) -> Dims {
        if self.once_in(3) { self.dims() } else { Dims::from([2, 3, 8, 8].map(|most| 1 + self.below(most))) }
    }
}

/// A loss, mostly a number.
fn loss(draw: &mut Draw) -> impl Fn(&Tensor) -> Result<Tensor> + use<> {
    let kind = draw.below(6);
    draw.note(format!("loss {kind}"));
    move |y: &Tensor| match kind {
        0 => Ok(y.clone()),
        1 => Ok(y.detach()),
        2 => Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?),
        _ if y.elem_count() > 1 << 20 => Ok(y.narrow(0, 0, 0)?),
        _ => Ok(y.sum_all()?),
    }
}

fn network(draw: &mut Draw) -> Outcome {
    let net = draw.network();
    let (shape, x, train, scope, loss) = (draw.shape(), draw.image(), draw.flag(), draw.text(), loss(draw));
    draw.go();
    let store = ParameterStore::new();
    store.enter(|| {
        parameter_scope(&scope, || {
            let summaries = [net.summary([shape.clone()]), net.summary_of(&x)];
            if !store.parameters().is_empty() {
                return Err(fault("a summary has made parameters"));
            }
            for summary in summaries.into_iter().flatten() {
                drop((summary.to_string(), summary.to_svg(), summary.to_dot(), summary.to_mermaid()));
                let _ = (summary.multiply_adds(), summary.parameter_bytes(), summary.activation_bytes());
            }
            drop(net.profile(&x, &loss).map(|profile| (profile.to_string(), profile.rows().len())));
            drop(net.gradient_audit(&x, &loss).map(|audit| audit.to_string()));
            net.clone().module_t().forward_t(&x, train).err();
            Ok(vec![net.forward_t(&x, train)?])
        })
    })
}

fn model(draw: &mut Draw) -> Outcome {
    let net = draw.network();
    let example = match draw.once_in(3) {
        true => Example::from(&draw.image()),
        false => Example::from(draw.shape()),
    };
    let (x, other, train, pattern) = (draw.image(), draw.network(), draw.flag(), draw.pattern());
    let (loss, rate) = (loss(draw), draw.rate());
    draw.go();
    let model = net.init(example.clone())?;
    let paths = |model: &Model| model.store().parameters().paths().map(str::to_owned).collect::<Vec<_>>();
    let first = paths(&model);
    let before = bits_of_store(model.store())?;
    let copy = model.deep_copy()?;
    copy.freeze(&pattern).err();
    let y = model.forward_t(&x, train);
    let trained = y.as_ref().ok().map(|y| {
        let mut solver = Sgd::new(rate);
        solver.set_parameters(&model.parameters());
        solver.update(&layerfn::backward(&loss(y)?)?)
    });
    drop((trained, model.summary().map(|summary| summary.to_string())));
    if paths(&model) != first {
        return Err(fault("a model has other parameters than it was made with"));
    }
    if bits_of_store(copy.store())? != before {
        return Err(fault("a copy has learned"));
    }
    let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
    let file = folder.path().join(if train { "model.h5" } else { "model.safetensors" });
    model.save(&file)?;
    copy.load(&file)?;
    if bits_of_store(copy.store())? != bits_of_store(model.store())? {
        return Err(fault("a model that is loaded is not what was saved"));
    }
    let now = bits_of_store(model.store())?;
    if let Ok(stranger) = other.init(example) {
        drop((stranger.save(&file), model.load(&file).err().map(|_| bits_of_store(model.store()))));
        if paths(&model) != first {
            return Err(fault("a load has changed which parameters a model has"));
        }
    }
    copy.unfreeze(&pattern).err();
    if bits_of_store(copy.store())? != now {
        return Err(fault("two models share parameters"));
    }
    model.to_device(&Device::Cpu)?.module_t().forward_t(&x, !train).err();
    Ok(vec![y?])
}

fn model_of_two(draw: &mut Draw) -> Outcome {
    let (n, axis) = (draw.size(), draw.size());
    let (first, second, x1, x2) = (draw.shape(), draw.shape(), draw.tensor(), draw.same());
    draw.go();
    let net = network! { |x1, x2| concat(axis) { a: affine(n), use(x2) -> b: affine(n) } -> tuple { _, affine(1) } };
    let model = net.init(first, second)?;
    drop(model.summary().map(|summary| summary.to_svg()));
    let (y, z) = model.forward_t(&x1, &x2, true)?;
    Ok(vec![y, z])
}

fn recurrent(draw: &mut Draw) -> Outcome {
    let (x, axis, size) = (draw.image(), draw.size(), draw.size());
    let (h, c) = (draw.matrix(), draw.same());
    draw.go();
    ParameterStore::new().enter(|| {
        let cell = |x: &Tensor, h: &Tensor, c: &Tensor| lstm(x, h, c, size);
        recur_from(&x, axis, (&h, &c), cell).err();
        Ok(vec![recur(&x, axis, size, cell)?])
    })
}
