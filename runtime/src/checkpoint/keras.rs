//! Keras's `.keras`: a zip file with the description of a model, which is not read, and its weights.

use super::archive::for_each;
use super::entry::{Contents, Other};
use super::input::Source;
use super::{Fault, Outcome, h5};

const WEIGHTS: &str = "model.weights.h5";

pub(super) fn read(source: &mut dyn Source) -> Outcome<Contents> {
    let (mut found, mut others) = (None, Vec::new());
    for_each(source, |member| {
        if member.name == WEIGHTS {
            found = Some(member.read(|input| h5::read_stream(input))?);
        } else {
            others.push(Other::Member(member.name.clone()));
        }
        Ok(())
    })?;
    let found = found.ok_or_else(|| Fault::format(format!("there is no `{WEIGHTS}` in it")))?;
    Ok(Contents { others, ..found })
}
