//! Rows of equal stages whose labels count: loops.

use super::stage::{Stage, Step};
use super::text::{ROUND, paths, with_paths};

/// The longest row that is looked for.
const LONGEST: usize = 32;

/// Writes repeated stages as loops, in the chains inside first.
pub(super) fn fold(steps: Vec<Step>) -> Vec<Step> {
    let mut steps = steps;
    for step in &mut steps {
        for chain in step.stage.chains_mut() {
            *chain = fold(std::mem::take(chain));
        }
    }
    let mut folded = Vec::with_capacity(steps.len());
    let mut at = 0;
    while at < steps.len() {
        match best(&steps[at..]) {
            Some((length, found)) => {
                folded.push(found);
                at += length;
            }
            None => {
                folded.push(steps[at].clone());
                at += 1;
            }
        }
    }
    folded
}

/// The loop that the stages begin with, if it is worth one, and how many of them it is.
fn best(steps: &[Step]) -> Option<(usize, Step)> {
    let found = (1..=LONGEST.min(steps.len() / 2)).filter_map(|period| rounds(steps, period));
    found.max_by_key(|(length, step)| (*length, matches!(step.stage, Stage::For { .. })))
}

fn rounds(steps: &[Step], period: usize) -> Option<(usize, Step)> {
    let mut first = None;
    let mut body = Vec::with_capacity(period);
    for (a, b) in steps[..period].iter().zip(&steps[period..]) {
        body.push(general(a, b, &mut first)?);
    }
    let first = first?;
    let more = steps.chunks_exact(period).enumerate().skip(2);
    let equal = more.take_while(|(round, chunk)| {
        body.iter().zip(*chunk).all(|(general, step)| special(general, &(first + round).to_string()) == *step)
    });
    let n = 2 + equal.count();
    // Two short rounds are read more easily than a loop.
    let step = Step::new(Stage::For { first, end: first + n, body });
    (n * period >= 4).then_some((n * period, step))
}

/// The step of which these are one round and the next; the number of the round is noted, and has to be that already noted.
fn general(a: &Step, b: &Step, first: &mut Option<usize>) -> Option<Step> {
    if a.bind.is_some() || b.bind.is_some() || a.scope.len() != b.scope.len() || a.shared != b.shared {
        return None;
    }
    let mut merged = a.clone();
    for (merged, (a, b)) in merged.scope.iter_mut().zip(a.scope.iter().zip(&b.scope)) {
        *merged = counted(a, b, first)?;
    }
    let text = |a: &str, b: &str, first: &mut Option<usize>| -> Option<String> {
        let others: Option<Vec<_>> = paths(a).zip(paths(b)).map(|(a, b)| counted(a, b, first)).collect();
        let mut others = others?.into_iter();
        let general = with_paths(a, |_| others.next().unwrap_or_default());
        let place = |text: &str| with_paths(text, |_| String::new());
        (place(a) == place(b)).then_some(general)
    };
    merged.stage = match (&a.stage, &b.stage) {
        (Stage::Closure(a), Stage::Closure(b)) => Stage::Closure(text(a, b, first)?),
        (Stage::Join { kind, branches: own }, Stage::Join { kind: other, branches })
            if kind == other && own.len() == branches.len() =>
        {
            let mut merged = Vec::with_capacity(own.len());
            for (a, b) in own.iter().zip(branches) {
                if a.len() != b.len() {
                    return None;
                }
                let steps: Option<Vec<_>> = a.iter().zip(b).map(|(a, b)| general(a, b, first)).collect();
                merged.push(steps?);
            }
            Stage::Join { kind: *kind, branches: merged }
        }
        (stage @ Stage::Call { .. }, other) if stage == other && !stage.names_paths() => stage.clone(),
        (stage @ Stage::Use(_), other) if stage == other => stage.clone(),
        _ => return None,
    };
    Some(merged)
}

/// The text with a mark in place of a number that is greater by one in `b`.
fn counted(a: &str, b: &str, first: &mut Option<usize>) -> Option<String> {
    if a == b {
        return Some(a.to_owned());
    }
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let digits = |text: &str| text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let start = same - digits(a.get(..same)?);
    let ((one, rest), (next, other)) = (number(a.get(start..)?)?, number(b.get(start..)?)?);
    if next != one.checked_add(1)? || rest != other || *first.get_or_insert(one) != one {
        return None;
    }
    Some(format!("{}{ROUND}{rest}", &a[..start]))
}

/// The number that the text begins with, and what follows.
fn number(text: &str) -> Option<(usize, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    let is_plain = digits == "0" || !digits.starts_with('0');
    Some((digits.parse().ok().filter(|_| is_plain)?, rest))
}

/// The step in the round of this number.
fn special(general: &Step, round: &str) -> Step {
    let filled = |text: &str| text.replace(ROUND, round);
    let mut step = general.clone();
    step.scope.iter_mut().for_each(|part| *part = filled(part));
    if let Stage::Closure(text) = &mut step.stage {
        *text = filled(text);
    }
    for chain in step.stage.chains_mut() {
        chain.iter_mut().for_each(|step| *step = special(step, round));
    }
    step
}
