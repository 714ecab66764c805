//! Paths as labels: stages with one beginning of their path in a block, and what is used twice marked as shared.

use std::collections::HashMap;

use super::stage::{Stage, Step};
use super::text::{ROUND, is_label};

/// Gives the chain labels, so that each stage's scope is its own label, and those around it are blocks.
pub(super) fn label(steps: Vec<Step>) -> Vec<Step> {
    let mut steps = grouped(steps);
    let mut counts = HashMap::new();
    count(&steps, &mut Vec::new(), false, &mut counts);
    mark(&mut steps, &mut Vec::new(), &counts);
    steps
}

/// The first part of the path that all layers of a stage have; nothing if they differ or if it needs the path from the root.
#[derive(Clone, PartialEq)]
enum Begin {
    Any,
    With(String),
    Differs,
}

fn begin(step: &Step) -> Begin {
    match &step.stage {
        stage if stage.names_paths() => Begin::Differs,
        Stage::Call { is_layer: true, .. } => match step.scope.first() {
            // Elsewhere it goes by the whole path.
            Some(part) if step.scope.iter().all(|part| may_label(part)) && !alone(step) => {
                Begin::With(part.clone())
            }
            _ => Begin::Differs,
        },
        Stage::Call { .. } | Stage::Closure(_) => Begin::Any,
        Stage::Use(_) => Begin::Differs,
        stage => {
            // A label outside of a loop does not count.
            let outside = |begin: Begin| match (stage, begin) {
                (Stage::For { .. }, Begin::With(part)) if part.contains(ROUND) => Begin::Differs,
                (_, begin) => begin,
            };
            let mut begins = stage
                .chains()
                .into_iter()
                .flatten()
                .map(begin)
                .map(outside)
                .filter(|begin| *begin != Begin::Any);
            match begins.next() {
                None => Begin::Any,
                Some(first) if begins.all(|begin| begin == first) => first,
                Some(_) => Begin::Differs,
            }
        }
    }
}

/// Whether the step has to keep its last label as its own.
fn alone(step: &Step) -> bool {
    step.shared && step.scope.len() == 1
}

fn may_label(part: &str) -> bool {
    is_label(part.strip_suffix(ROUND).unwrap_or(part))
}

fn grouped(steps: Vec<Step>) -> Vec<Step> {
    let mut found = Vec::with_capacity(steps.len());
    let mut rest = steps.into_iter().peekable();
    while let Some(step) = rest.next() {
        let Begin::With(part) = begin(&step) else {
            found.push(inside(step));
            continue;
        };
        // As far as stages begin so, with what has no parameters in between.
        let (mut run, mut between) = (vec![step], Vec::new());
        while run.last().is_some_and(|step| step.bind.is_none())
            && let Some(next) = rest.next_if(|next| match begin(next) {
                Begin::Any => next.bind.is_none(),
                Begin::With(other) => other == part,
                Begin::Differs => false,
            })
        {
            match begin(&next) {
                Begin::Any => between.push(next),
                _ => {
                    run.append(&mut between);
                    run.push(next);
                }
            }
        }
        found.extend(block(part, run));
        found.extend(between.into_iter().map(inside));
    }
    found
}

/// These stages under a label.
fn block(part: String, mut run: Vec<Step>) -> Vec<Step> {
    if let [Step { stage: Stage::Call { .. }, scope, .. }] = &run[..]
        && scope.len() == 1
    {
        return run;
    }
    let bind = run.last_mut().and_then(|step| step.bind.take());
    run.iter_mut().for_each(strip);
    let mut steps = grouped(run);
    let stage = match &mut steps[..] {
        // Braces have room for a label.
        [Step { stage: stage @ (Stage::Join { .. } | Stage::For { .. }), scope, .. }] if scope.is_empty() => {
            std::mem::replace(stage, Stage::Use(String::new()))
        }
        _ => Stage::Block(steps),
    };
    vec![Step { scope: vec![part], bind, ..Step::new(stage) }]
}

/// Takes the first label away.
fn strip(step: &mut Step) {
    if matches!(step.stage, Stage::Call { is_layer: true, .. }) && !step.scope.is_empty() {
        step.scope.remove(0);
    }
    step.stage.chains_mut().into_iter().flatten().for_each(strip);
}

fn inside(mut step: Step) -> Step {
    for chain in step.stage.chains_mut() {
        *chain = grouped(std::mem::take(chain));
    }
    step
}

/// How often each label stands under the same labels.
fn count(steps: &[Step], around: &mut Vec<String>, repeats: bool, counts: &mut HashMap<Vec<String>, usize>) {
    for step in steps {
        let depth = around.len();
        around.extend(step.scope.iter().cloned());
        let counts_up = step.scope.iter().any(|part| part.contains(ROUND));
        if !step.scope.is_empty() {
            *counts.entry(around.clone()).or_default() += if repeats && !counts_up { 2 } else { 1 };
        }
        let repeats = (repeats && !counts_up) || matches!(step.stage, Stage::For { .. });
        for chain in step.stage.chains() {
            count(chain, around, repeats, counts);
        }
        around.truncate(depth);
    }
}

fn mark(steps: &mut [Step], around: &mut Vec<String>, counts: &HashMap<Vec<String>, usize>) {
    for step in steps {
        let depth = around.len();
        around.extend(step.scope.iter().cloned());
        step.shared = !step.scope.is_empty() && counts.get(around).is_some_and(|&count| count > 1);
        for chain in step.stage.chains_mut() {
            mark(chain, around, counts);
        }
        around.truncate(depth);
    }
}
