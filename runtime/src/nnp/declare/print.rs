//! Stages as text, in lines of the width that the crate has.

use super::stage::{Join, Stage, Step};
use super::text::{FLOW, ROUND, is_label, literal, rendered};

const WIDTH: usize = 110;

pub(super) struct Printer<'a> {
    /// What a value is called.
    pub(super) name: &'a dyn Fn(usize) -> String,
    /// The variable that a value is bound to.
    pub(super) variable: &'a dyn Fn(usize) -> String,
}

impl Printer<'_> {
    /// The lines of a chain, of which the first begins with `first` and others with `next`.
    /// What is too long for a line is broken, with its end in this column.
    pub(super) fn chain(&self, steps: &[Step], [first, next]: [&str; 2], column: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = first.to_owned();
        let mut is_empty = true;
        // What follows a broken step begins a line.
        let mut is_broken = false;
        for step in steps {
            let text = self.step(step);
            if !is_empty && !is_broken && line.len() + 4 + text.len() + 2 <= WIDTH {
                line = format!("{line} -> {text}");
                continue;
            }
            if !is_empty {
                lines.push(std::mem::replace(&mut line, next.to_owned()));
            }
            is_empty = false;
            is_broken = line.len() + text.len() + 2 > WIDTH;
            if !is_broken {
                line.push_str(&text);
                continue;
            }
            let mut more = self.broken(step, column).into_iter();
            line.push_str(&more.next().unwrap_or_default());
            for further in more {
                lines.push(std::mem::replace(&mut line, further));
            }
        }
        if steps.is_empty() {
            line.push('_');
        }
        lines.push(line);
        lines
    }

    /// A step that is too long for a line, whose braces close at this column.
    fn broken(&self, step: &Step, column: usize) -> Vec<String> {
        let (indent, deeper) = (" ".repeat(column), " ".repeat(column + 4));
        let leads = [deeper.as_str(), &format!("{deeper}-> ")];
        let chains: Vec<Vec<String>> =
            step.stage.chains().into_iter().map(|chain| self.chain(chain, leads, column + 4)).collect();
        if chains.is_empty() {
            return wrapped(&self.step(step), &indent);
        }
        let mut lines = vec![format!("{}{}{{", label(step), head(&step.stage))];
        let n = chains.len();
        for mut chain in chains {
            if let (Some(last), true) = (chain.last_mut(), n > 1) {
                last.push(',');
            }
            lines.append(&mut chain);
        }
        lines.push(format!("{indent}}}{}", self.bound(step)));
        lines
    }

    /// The step in one line.
    fn step(&self, step: &Step) -> String {
        let text = |text: &str, flow: &str| rendered(text, flow, self.name);
        let stage = match &step.stage {
            Stage::Call { callee, given, options, .. } => {
                let mut all: Vec<String> = given.iter().map(|given| text(given, "")).collect();
                all.extend(options.iter().map(|(name, value)| format!("{name} = {}", text(value, ""))));
                if !step.scope.is_empty() && label(step).is_empty() {
                    let name = literal(&step.scope.join("/"));
                    all.push(format!("name = {}", name.trim_start_matches('&')));
                }
                if all.is_empty() { callee.clone() } else { format!("{callee}({})", all.join(", ")) }
            }
            Stage::Closure(code) => {
                let flow = if code.contains(FLOW) { "h" } else { "_" };
                format!("(|{flow}: &Tensor| {})", text(code, "h"))
            }
            Stage::Use(code) => format!("use({})", text(code, "")),
            stage => {
                let chains: Vec<_> = stage.chains().into_iter().map(|chain| self.line(chain)).collect();
                format!("{}{{ {} }}", head(stage), chains.join(", "))
            }
        };
        format!("{}{stage}{}", label(step), self.bound(step))
    }

    fn line(&self, steps: &[Step]) -> String {
        if steps.is_empty() {
            return "_".to_owned();
        }
        steps.iter().map(|step| self.step(step)).collect::<Vec<_>>().join(" -> ")
    }

    fn bound(&self, step: &Step) -> String {
        step.bind.map(|value| format!(" as {}", (self.variable)(value))).unwrap_or_default()
    }
}

/// What stands before the braces.
fn head(stage: &Stage) -> String {
    match stage {
        Stage::Join { kind: Join::Residual, .. } => "residual ".to_owned(),
        Stage::Join { kind: Join::Add, .. } => "add ".to_owned(),
        Stage::Join { kind: Join::Mul, .. } => "mul ".to_owned(),
        Stage::Join { kind: Join::Concat(axis), .. } => format!("concat({axis}) "),
        Stage::For { first, end, .. } => format!("for i in {first}..{end} "),
        _ => String::new(),
    }
}

/// `shared name: `, or nothing where there is no label that says it.
fn label(step: &Step) -> String {
    let [part] = &step.scope[..] else { return String::new() };
    let shared = if step.shared { "shared " } else { "" };
    match part.strip_suffix(ROUND) {
        Some(part) if is_label(part) => format!("{shared}{part}[i]: "),
        None if is_label(part) => format!("{shared}{part}: "),
        _ => String::new(),
    }
}

/// A long call, with what it is given in lines of their own.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let begin = if text.starts_with("(|") { text.find("| ").map_or(0, |at| at + 2) } else { 0 };
    let Some(open) = text[begin..].find('(').map(|at| begin + at + 1) else { return vec![text.to_owned()] };
    let open = if text[open..].starts_with("vec![") { open + 5 } else { open };
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let (mut given, mut start, mut close) = (Vec::new(), open, text.len());
    for (at, c) in text[open..].char_indices() {
        let at = open + at;
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' if depth == 0 => {
                close = at;
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                given.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    given.push(text[start..close].trim());
    let deeper = format!("{indent}    ");
    let mut lines = vec![text[..open].to_owned()];
    let mut line = deeper.clone();
    for given in given {
        if line.len() > deeper.len() && line.len() + given.len() + 2 > WIDTH {
            lines.push(std::mem::replace(&mut line, deeper.clone()).trim_end().to_owned());
        }
        if deeper.len() + given.len() + 1 > WIDTH && given.contains('(') {
            let mut more = wrapped(given, &deeper).into_iter();
            line.push_str(&more.next().unwrap_or_default());
            for further in more {
                lines.push(std::mem::replace(&mut line, further));
            }
            lines.push(format!("{},", std::mem::replace(&mut line, deeper.clone())));
            continue;
        }
        line = format!("{line}{given}, ");
    }
    if line.trim().is_empty() {
        let last = lines.pop().unwrap_or_default();
        line = last;
    }
    lines.push(line.trim_end().trim_end_matches(',').to_owned());
    lines.push(format!("{indent}{}", &text[close..]));
    lines
}
