//! PyTorch's `.pt` and `.pth`: a zip file with a pickle and the numbers that it refers to. Nothing of it is executed.

use std::collections::{BTreeMap, HashMap, HashSet};

use candle_core::{Device, Tensor, Var};

use super::archive::{Member, for_each};
use super::entry::{Contents, Entry};
use super::input::{Source, length};
use super::pickle::{self, Ref, Value, Values};
use super::values::Stored;
use super::{Fault, Outcome};
use crate::limits;

/// A pickle has some 200 bytes for each tensor.
const MAX_PICKLE: u64 = 1 << 26;

/// All tensors together may have so many bytes for each of the file's: several may be views of the same numbers.
const MAX_COPIES: u64 = 8;

pub(super) fn read(source: &mut dyn Source) -> Outcome<Contents> {
    let file_length = length(source)?;
    let mut start = [0; 2];
    source.read_exact(&mut start).map_err(Fault::while_reading)?;
    source.rewind()?;
    if start != *b"PK" {
        return Err(Fault::format(
            "is not a zip archive; what PyTorch before 1.6 has written must be loaded and saved again there",
        ));
    }
    let mut found = None;
    for_each(source, |member| {
        let size = member.size;
        if let Some(folder) = member.name.strip_suffix("data.pkl") {
            let folder = folder.to_owned();
            if size > MAX_PICKLE.min(file_length) {
                return Err(Fault::format(format!("has {size} bytes, more than a state dict takes")));
            }
            if found.replace((folder, member.read(pickle::read)?)).is_some() {
                return Err(Fault::format("there is another data.pkl"));
            }
        } else if member.name.ends_with("byteorder") {
            let order = member.read(|input| input.text())?;
            if order.trim() != "little" {
                return Err(Fault::format(format!("the byte order {:?} is not read", limits::brief(&order))));
            }
        }
        Ok(())
    })?;
    let (folder, values) = found.ok_or_else(|| Fault::format("there is no data.pkl in it"))?;
    let listed = listed(&values)?;
    let mut storages: BTreeMap<&str, Vec<(usize, &View)>> = BTreeMap::new();
    for (place, (_, item)) in listed.iter().enumerate() {
        if let Ok(view) = item {
            storages.entry(&view.storage).or_default().push((place, view));
        }
    }
    let mut vars: HashMap<usize, Var> = HashMap::new();
    let mut budget = file_length.saturating_mul(MAX_COPIES);
    source.rewind()?;
    for_each(source, |member| {
        let name = member.name.clone();
        let storage = name.strip_prefix(&*folder).and_then(|name| name.strip_prefix("data/"));
        for (place, var) in match storage.and_then(|storage| storages.remove(storage)) {
            Some(views) => taken(member, &views, &mut budget)?,
            None => Vec::new(),
        } {
            vars.insert(place, var);
        }
        Ok(())
    })?;
    if let Some((storage, _)) = storages.pop_first() {
        return Err(Fault::format(format!("`{folder}data/{}` is missing", limits::brief(storage))));
    }
    let mut contents = Contents::default();
    for (place, (path, item)) in listed.into_iter().enumerate() {
        let entry = item.map(|view| (view, vars.remove(&place))).and_then(|(view, var)| {
            let var = var.ok_or_else(|| Fault::format("has no numbers"))?;
            Ok(Entry::new(path.clone(), var, view.need_grad).of_type(view.stored))
        });
        contents.take(&path, entry)?;
    }
    Ok(contents)
}

/// A tensor: which of the numbers in a storage it has.
struct View {
    storage: String,
    stored: Stored,
    offset: usize,
    dims: Vec<usize>,
    strides: Vec<usize>,
    need_grad: Option<bool>,
}

/// The tensors of `member`, with the place of each.
fn taken(
    member: &mut Member<'_, '_>,
    views: &[(usize, &View)],
    budget: &mut u64,
) -> Outcome<Vec<(usize, Var)>> {
    let stored = views[0].1.stored;
    if views.iter().any(|(_, view)| view.stored != stored) {
        return Err(Fault::format("its numbers are said to be of two types"));
    }
    let n = usize::try_from(member.size / stored.size()).map_err(|_| Fault::format("is too long"))?;
    for (_, view) in views {
        let bytes = (view.count(n)? as u64).saturating_mul(stored.size());
        *budget = budget.checked_sub(bytes).ok_or_else(|| {
            Fault::format(format!("the tensors have more than {MAX_COPIES} times the bytes of the file"))
        })?;
    }
    if let [(place, view)] = views
        && view.is_whole(n)
    {
        return Ok(vec![(*place, member.read(|input| stored.read(input, &view.dims, false))?)]);
    }
    let all = member.read(|input| stored.read(input, &[n], false))?;
    views.iter().map(|(place, view)| Ok((*place, view.of(&all)?))).collect()
}

impl View {
    /// Number of elements, if all lie among `n`.
    fn count(&self, n: usize) -> Outcome<usize> {
        let outside = || Fault::format(format!("a tensor of shape {:?} lies outside of it", self.dims));
        let count = self.stored.count(&self.dims)?;
        let mut last = self.offset;
        for (size, stride) in self.dims.iter().zip(&self.strides) {
            let length = size.saturating_sub(1).checked_mul(*stride).ok_or_else(outside)?;
            last = last.checked_add(length).ok_or_else(outside)?;
        }
        if count > 0 && last >= n { Err(outside()) } else { Ok(count) }
    }

    fn is_contiguous(&self) -> bool {
        let mut stride = 1;
        self.dims.iter().zip(&self.strides).rev().all(|(&size, &given)| {
            let fits = size == 1 || given == stride;
            stride *= size.max(1);
            fits
        })
    }

    fn is_whole(&self, n: usize) -> bool {
        self.is_contiguous() && self.offset == 0 && self.dims.iter().product::<usize>() == n
    }

    fn of(&self, all: &Var) -> Outcome<Var> {
        let (all, count) = (all.as_tensor().detach(), self.dims.iter().product());
        let values = if self.is_contiguous() || count == 0 {
            all.narrow(0, if count == 0 { 0 } else { self.offset }, count)?
        } else {
            let mut places = vec![self.offset as i64];
            for (&size, &stride) in self.dims.iter().zip(&self.strides) {
                let steps = |place: i64| (0..size).map(move |i| place + (i * stride) as i64);
                places = places.into_iter().flat_map(steps).collect();
            }
            all.index_select(&Tensor::from_vec(places, count, &Device::Cpu)?, 0)?
        };
        Ok(Var::from_tensor(&values.reshape(&self.dims[..])?)?)
    }
}

/// Everything in the dicts, by path, in order.
fn listed(values: &Values) -> Outcome<Vec<(String, Outcome<View>)>> {
    if !matches!(values.get(values.root), Value::Dict(_)) {
        return Err(Fault::format(format!(
            "holds {} and not a dict of tensors; save `module.state_dict()`",
            values.kind(values.root)
        )));
    }
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut waiting = vec![(String::new(), values.root)];
    while let Some((path, place)) = waiting.pop() {
        match values.get(place) {
            Value::Dict(_) if !seen.insert(place) => {
                found.push((path, Err(Fault::unusable("is a dict that is used elsewhere as well"))));
            }
            Value::Dict(items) => {
                for (key, value) in items.iter().rev() {
                    let key = match values.get(*key) {
                        Value::Text(key) => key.clone(),
                        Value::Int(key) => key.to_string(),
                        _ => return Err(Fault::format(format!("a key is {}", values.kind(*key)))),
                    };
                    let path = if path.is_empty() { key } else { format!("{path}/{key}") };
                    limits::check_path(&path).map_err(|reason| {
                        Fault::format(format!("the path {:?} {reason}", limits::brief(&path)))
                    })?;
                    waiting.push((path, *value));
                }
            }
            _ => found.push((path, view(values, place))),
        }
    }
    Ok(found)
}

fn view(values: &Values, place: Ref) -> Outcome<View> {
    let other = || Fault::unusable(format!("is {}, not a tensor", values.kind(place)));
    let Value::Call(function, arguments) = values.get(place) else { return Err(other()) };
    let (mut function, mut arguments) = (*function, values.tuple(*arguments).ok_or_else(other)?);
    let mut need_grad = None;
    if values.global(function) == Some(("torch._utils", "_rebuild_parameter")) {
        let [data, trained, ..] = arguments else { return Err(other()) };
        if let Value::Bool(trained) = values.get(*trained) {
            need_grad = Some(*trained);
        }
        let Value::Call(inner, inner_arguments) = values.get(*data) else { return Err(other()) };
        (function, arguments) = (*inner, values.tuple(*inner_arguments).ok_or_else(other)?);
    }
    if values.global(function) != Some(("torch._utils", "_rebuild_tensor_v2")) {
        return Err(other());
    }
    let damaged = || Fault::format("is a tensor that is not described as PyTorch does it");
    let [storage, offset, dims, strides, ..] = arguments else { return Err(damaged()) };
    let sizes = |place: Ref| -> Option<Vec<usize>> {
        values.tuple(place)?.iter().map(|&size| values.size(size)).collect()
    };
    let Value::Persistent(storage) = values.get(*storage) else { return Err(damaged()) };
    let Some([kind, class, key, ..]) = values.tuple(*storage) else { return Err(damaged()) };
    let (Some("storage"), Some((_, class)), Some(key)) =
        (values.text(*kind), values.global(*class), values.text(*key))
    else {
        return Err(damaged());
    };
    let stored = stored(class)
        .ok_or_else(|| Fault::unusable(format!("has a {class}, of which no tensor can be made here")))?;
    let (offset, dims, strides) = values
        .size(*offset)
        .zip(sizes(*dims))
        .zip(sizes(*strides))
        .map(|((offset, dims), strides)| (offset, dims, strides))
        .filter(|(_, dims, strides)| dims.len() == strides.len())
        .ok_or_else(damaged)?;
    limits::check_rank(dims.len()).map_err(Fault::format)?;
    Ok(View { storage: key.to_owned(), stored, offset, dims, strides, need_grad })
}

fn stored(class: &str) -> Option<Stored> {
    Some(match class {
        "FloatStorage" => Stored::F32,
        "DoubleStorage" => Stored::F64,
        "HalfStorage" => Stored::F16,
        "BFloat16Storage" => Stored::BF16,
        "LongStorage" => Stored::I64,
        "IntStorage" => Stored::I32,
        "ShortStorage" => Stored::I16,
        "CharStorage" => Stored::I8,
        "ByteStorage" => Stored::U8,
        "BoolStorage" => Stored::Bool,
        _ => return None,
    })
}
