//! Rules that concern more than one stage, or the whole network.

use std::collections::HashMap;

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::{LitStr, Type};

use super::ast::{Arm, Call, Chain, If, Input, Label, Otherwise, Stage, Step};
use crate::support::errors::Errors;
use crate::support::{names, print, types};

/// How many inputs a network can have; the runtime has a constructor for each number.
const MOST_INPUTS: usize = 8;

/// Labels of one block: the first position of each, and whether it is `shared` there.
type Labels = HashMap<String, (Span, bool)>;

pub(super) fn check(input: &Input, errors: &mut Errors) {
    match input {
        Input::Expression(network) => {
            check_inputs(&network.body.inputs, errors);
            check_chain(&network.body.chain, &mut Labels::new(), errors);
        }
        Input::Items(items) => items.iter().for_each(|item| {
            item.output.iter().for_each(|output| check_output(output, errors));
            check_chain(&item.body.chain, &mut Labels::new(), errors);
        }),
    }
}

fn check_inputs(inputs: &[Ident], errors: &mut Errors) {
    if let Some(first_too_many) = inputs.get(MOST_INPUTS) {
        let text = format!(
            "a network has at most {MOST_INPUTS} inputs, this one has {}; write a network function, \
             `fn name() |a, b, ..| < .. >`, which takes any number of them",
            inputs.len()
        );
        errors.unclear_at(first_too_many.span(), text);
    }
}

/// Whether a network function can return this type; only rustc can expand a macro.
pub(super) fn may_be_result(output: &Type) -> bool {
    types::result(output).is_some() || matches!(types::bare(output), Type::Macro(_))
}

fn check_output(output: &Type, errors: &mut Errors) {
    if !may_be_result(output) {
        let text = format!("a network function returns a `Result`; write `-> Result<{}>`", print::ty(output));
        errors.at(output, text);
    }
}

fn check_chain(chain: &Chain, labels: &mut Labels, errors: &mut Errors) {
    for step in &chain.steps {
        if let Some(label) = &step.label {
            check_label(label, labels, errors);
            // A label opens a scope: labels inside do not conflict with labels outside.
            check_stage(&step.stage, &mut Labels::new(), errors);
        } else {
            check_stage(&step.stage, labels, errors);
        }
        check_name(step, errors);
        if let Step { label: Some(label), stage: Stage::Identity | Stage::Use { .. }, .. } = step {
            let text = match label.frozen {
                true => "there is nothing to freeze here: no stage runs under this label",
                false => {
                    "no stage runs under this label; remove it, or name the tensor behind it: `_ as name`"
                }
            };
            errors.at_span(label.name.span(), text);
        }
    }
}

/// `name = ".."`
fn check_name(step: &Step, errors: &mut Errors) {
    let Stage::Call(call) = &step.stage else { return };
    let Some(option) = call.option("name") else { return };
    if let Some(label) = &step.label {
        let text = format!("the label `{}` names this stage already; remove one of the two", label.text());
        errors.at_span(option.key.span(), text);
    }
    if let Ok(name) = syn::parse2::<LitStr>(option.value.clone())
        && let Some(fault) = names::fault(&name.value())
    {
        errors.at(&name, fault);
    }
}

fn check_label(label: &Label, labels: &mut Labels, errors: &mut Errors) {
    let key = match &label.index {
        Some(index) => format!("{}[{index}]", label.text()),
        None => label.text(),
    };
    match labels.get(&key) {
        Some(&(first, shared)) if !(shared && label.shared) => {
            errors.at_span(
                label.name.span(),
                format!(
                    "label `{key}` is used twice in this block; choose another, or write `shared {key}: ..` at both \
                     places to use the same parameters"
                ),
            );
            errors.at_span(first, format!("label `{key}` is used here first"));
        }
        Some(_) => {}
        None => drop(labels.insert(key, (label.name.span(), label.shared))),
    }
}

fn check_stage(stage: &Stage, labels: &mut Labels, errors: &mut Errors) {
    match stage {
        Stage::Block(chain) | Stage::For { body: chain, .. } => check_chain(chain, labels, errors),
        Stage::Join(join) => join.branches.iter().for_each(|branch| check_chain(branch, labels, errors)),
        Stage::If(inner) => check_if(inner, labels, errors),
        Stage::Match { arms, .. } => {
            check_either(arms.iter().map(|Arm { chain, .. }| chain), labels, errors);
        }
        Stage::Call(_) | Stage::Value { .. } | Stage::Identity | Stage::Use { .. } | Stage::Missing => {}
    }
}

fn check_if(stage: &If, labels: &mut Labels, errors: &mut Errors) {
    let mut chains = vec![&stage.then];
    let mut rest = &stage.otherwise;
    while let Some(otherwise) = rest {
        rest = match otherwise {
            Otherwise::If(inner) => {
                chains.push(&inner.then);
                &inner.otherwise
            }
            Otherwise::Block(chain) => {
                chains.push(chain);
                &None
            }
        };
    }
    check_either(chains.into_iter(), labels, errors);
}

/// Only one of these chains runs, so they may use the same labels.
fn check_either<'a>(chains: impl Iterator<Item = &'a Chain>, labels: &mut Labels, errors: &mut Errors) {
    let before = labels.clone();
    for chain in chains {
        let mut own = before.clone();
        check_chain(chain, &mut own, errors);
        labels.extend(own);
    }
}

/// The name that an unlabelled stage is counted by.
pub(super) fn counted_name(call: &Call) -> Option<String> {
    call.option("name").is_none().then(|| call.name.unraw().to_string())
}
