//! One use of an operator: what it takes, and its attributes.

use candle_core::{DType, Tensor};

use crate::told::{Form, told};
use crate::{Error, PerAxis, Result, functions, onnx};

/// What computes an operator.
pub(super) type Function = fn(&Call<'_>) -> Result<Vec<Tensor>>;

pub(super) struct Call<'a> {
    pub(super) node: &'a onnx::Node,
    /// The attribute that is a tensor.
    pub(super) constant: Option<&'a Tensor>,
    pub(super) inputs: &'a [Option<Tensor>],
}

impl Call<'_> {
    pub(super) fn input(&self, n: usize) -> Result<&Tensor> {
        self.get(n)
            .ok_or_else(|| Error::invalid("input", format!("must have a tensor {n}"), self.inputs.len()))
    }

    pub(super) fn get(&self, n: usize) -> Option<&Tensor> {
        self.inputs.get(n)?.as_ref()
    }

    fn attribute(&self, name: &str) -> Option<&onnx::Attribute> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn int(&self, name: &str, absent: i64) -> i64 {
        self.attribute(name).map_or(absent, |attribute| attribute.i)
    }

    pub(super) fn float(&self, name: &str, absent: f64) -> f64 {
        self.attribute(name).map_or(absent, |attribute| f64::from(attribute.f))
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.attribute(name).and_then(|attribute| std::str::from_utf8(&attribute.s).ok()).unwrap_or_default()
    }

    /// The names of a list; empty if absent.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        let list = self.attribute(name).map(|attribute| &attribute.strings[..]).unwrap_or_default();
        list.iter().map(|text| std::str::from_utf8(text).unwrap_or("?")).collect()
    }

    pub(super) fn counts(&self, name: &'static str) -> Result<Option<Vec<usize>>> {
        self.ints(name).map(|values| counts(name, values)).transpose()
    }

    /// A number for each of `n` axes; `absent` if there are none.
    pub(super) fn per_axis(&self, name: &'static str, n: usize, absent: usize) -> Result<PerAxis> {
        let found = self.counts(name)?.unwrap_or_else(|| vec![absent; n]);
        if found.len() != n {
            return Err(Error::invalid(
                name,
                format!("must have {n} numbers, one for each spatial axis"),
                found,
            ));
        }
        Ok(PerAxis::Each(found))
    }

    /// The axis that an attribute names, counted from the front.
    pub(super) fn axis(&self, absent: i64, rank: usize) -> Result<usize> {
        axis(self.int("axis", absent), rank)
    }

    /// Integers by an attribute, or by the input `n` as newer versions have them.
    pub(super) fn list(&self, name: &str, n: usize) -> Result<Option<Vec<i64>>> {
        match (self.ints(name), self.get(n)) {
            (Some(values), _) => Ok(Some(values.to_vec())),
            (None, Some(tensor)) => integers(tensor).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The axes of the attribute or the input, each counted from the front.
    pub(super) fn axes(&self, n: usize, rank: usize) -> Result<Option<Vec<usize>>> {
        let axes = self.list("axes", n)?;
        axes.map(|axes| axes.into_iter().map(|of| axis(of, rank)).collect()).transpose()
    }

    pub(super) fn unsupported(&self, name: &'static str, reason: &str) -> Error {
        Error::invalid(name, reason, self.node.op_type.clone())
    }
}

pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64).unwrap_or(-1) } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Error::invalid("axis", format!("must be one of the {rank} axes"), axis))
}

pub(super) fn counts(name: &'static str, values: &[i64]) -> Result<Vec<usize>> {
    let counts: std::result::Result<_, _> = values.iter().map(|&value| usize::try_from(value)).collect();
    counts.map_err(|_| Error::invalid(name, "must not contain a negative number", values))
}

/// The elements as integers.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    Ok(tensor.detach().flatten_all()?.to_dtype(DType::I64)?.to_vec1()?)
}

/// The only element, as a number.
pub(super) fn number(tensor: &Tensor) -> Result<f64> {
    let values = tensor.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match values[..] {
        [value] => Ok(value),
        _ => Err(Error::invalid("input", "must have one element", tensor.dims())),
    }
}

/// The tensor as integers, or as numbers with a fraction.
pub(super) fn of_kind(tensor: &Tensor, is_integer: bool) -> Result<Tensor> {
    let dtype = match (tensor.dtype().is_float(), is_integer) {
        (true, true) => DType::I64,
        (false, false) => DType::F32,
        (false, true) if tensor.dtype() != DType::I64 => DType::I64,
        _ => return Ok(tensor.clone()),
    };
    told(|| Form::new("Identity", &[tensor]), || Ok(tensor.to_dtype(dtype)?))
}

/// In a shape that has no open size.
pub(super) fn shaped(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if x.dims() == dims {
        return Ok(x.clone());
    }
    let sizes: Vec<isize> = dims.iter().map(|&size| size as isize).collect();
    functions::reshape(x, &sizes)
}

/// With axes of size 1 in front.
pub(super) fn of_rank(x: &Tensor, rank: usize) -> Result<Tensor> {
    shaped(x, &[&vec![1; rank.saturating_sub(x.rank())], x.dims()].concat())
}

pub(super) fn one(tensor: Tensor) -> Result<Vec<Tensor>> {
    Ok(vec![tensor])
}
