//! Networks with their loops written out: every variable and function once for each round of the loops around it.

use std::collections::HashMap;

use super::Fault;
use crate::checkpoint::definition::Message;
use crate::limits::brief;

/// What the rounds of loops may take in memory, in bytes: names, edges and what belongs to them.
const MOST: usize = 1 << 28;

/// A network without loops.
#[derive(Debug, Default)]
pub(super) struct Unrolled<'a> {
    pub(super) variables: Vec<Variable<'a>>,
    pub(super) functions: Vec<Function<'a>>,
}

#[derive(Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: String,
    pub(super) definition: &'a Message,
}

#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: String,
    pub(super) definition: &'a Message,
    pub(super) does: Does,
    /// Places in the list of variables.
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// What its type says.
    AsDefined,
    /// What the begin, the end and the delays of a loop become.
    Identity,
    /// What hands out the steps of a loop becomes: slices along this axis, which goes.
    Split(i64),
    /// What collects the steps of a loop becomes.
    Stack(i64),
}

/// The rounds of the loops around something, outermost first.
type Rounds<'a> = Vec<(&'a str, usize)>;

pub(super) fn unroll(network: &Message) -> Result<Unrolled<'_>, Fault> {
    let mut unroll = Unroll {
        times: times(network)?,
        declared: HashMap::new(),
        instances: HashMap::new(),
        unrolled: Unrolled::default(),
        left: MOST,
    };
    network.messages("variable").try_for_each(|variable| unroll.variable(variable))?;
    for function in network.messages("function") {
        let name = function.text("name");
        unroll.function(function).map_err(|fault| fault.of_function(name, function.text("type")))?;
    }
    Ok(unroll.unrolled)
}

fn times(network: &Message) -> Result<HashMap<&str, usize>, Fault> {
    let one = |info: &'_ Message| {
        usize::try_from(info.integer("times")).map_err(|_| {
            Fault::new(format!("`repeat_info` of the loop `{}`: `times` is negative", brief(info.text("id"))))
        })
    };
    network.messages("repeat_info").map(|info| Ok((info.text("id"), one(info)?))).collect()
}

struct Unroll<'a> {
    times: HashMap<&'a str, usize>,
    declared: HashMap<&'a str, Declared<'a>>,
    /// The variables inside loops by the names that they get there.
    instances: HashMap<String, usize>,
    unrolled: Unrolled<'a>,
    left: usize,
}

struct Declared<'a> {
    definition: &'a Message,
    loops: Vec<&'a str>,
    /// Place of the first of its instances.
    first: usize,
}

impl<'a> Unroll<'a> {
    fn times(&self, id: &str) -> Result<usize, Fault> {
        self.times.get(id).copied().ok_or_else(|| {
            Fault::new(format!("the loop `{}` has no `repeat_info` that says how often it runs", brief(id)))
        })
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| {
            Fault::new("the loops make more variables and functions than there is room for")
        })?;
        Ok(())
    }

    fn variable(&mut self, definition: &'a Message) -> Result<(), Fault> {
        let name = definition.text("name");
        let loops: Vec<&str> = definition.texts("repeat_id").collect();
        let first = self.unrolled.variables.len();
        let declared = Declared { definition, loops: loops.clone(), first };
        if self.declared.insert(name, declared).is_some() {
            return Err(Fault::new(format!("the variable `{}` is declared twice", brief(name))));
        }
        self.each_round(&loops, |unroll, rounds| {
            let name = named(name, rounds);
            if !rounds.is_empty() {
                unroll.spend(2 * name.len() + 200)?;
                unroll.instances.insert(name.clone(), unroll.unrolled.variables.len());
            }
            unroll.unrolled.variables.push(Variable { name, definition });
            Ok(())
        })
    }

    /// Calls `f` for every combination of the rounds of these loops, the innermost moving fastest.
    fn each_round(
        &mut self,
        loops: &[&'a str],
        mut f: impl FnMut(&mut Self, &Rounds<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let times: Vec<usize> = loops.iter().map(|id| self.times(id)).collect::<Result<_, _>>()?;
        let mut rounds: Rounds<'a> = loops.iter().map(|&id| (id, 0)).collect();
        if times.contains(&0) {
            return Ok(());
        }
        loop {
            f(self, &rounds)?;
            let mut at = rounds.len();
            loop {
                if at == 0 {
                    return Ok(());
                }
                at -= 1;
                rounds[at].1 += 1;
                if rounds[at].1 < times[at] {
                    break;
                }
                rounds[at].1 = 0;
            }
        }
    }

    fn function(&mut self, definition: &'a Message) -> Result<(), Fault> {
        let loops: Vec<&str> = definition.texts("repeat_id").collect();
        match definition.text("type") {
            "RepeatStart" => self.begin(definition, &loops, "repeat_param", [0, 1]),
            "Delay" => self.begin(definition, &loops, "recurrent_param", [1, 0]),
            "RepeatEnd" => self.end(definition, &loops),
            "RecurrentInput" => self.steps_in(definition, loops),
            "RecurrentOutput" => self.steps_out(definition, &loops),
            _ => self.each_round(&loops, |unroll, rounds| {
                unroll.push(definition, Does::AsDefined, rounds, |unroll| {
                    let inputs = definition.texts("input").map(|name| unroll.place(name, rounds));
                    inputs.collect()
                })
            }),
        }
    }

    /// Appends a function whose outputs are those that it declares.
    fn push(
        &mut self,
        definition: &'a Message,
        does: Does,
        rounds: &Rounds<'a>,
        inputs: impl FnOnce(&mut Self) -> Result<Vec<usize>, Fault>,
    ) -> Result<(), Fault> {
        let inputs = inputs(self)?;
        let outputs: Vec<_> =
            definition.texts("output").map(|name| self.place(name, rounds)).collect::<Result<_, _>>()?;
        self.push_with(definition, does, rounds, inputs, outputs)
    }

    fn push_with(
        &mut self,
        definition: &'a Message,
        does: Does,
        rounds: &Rounds<'a>,
        inputs: Vec<usize>,
        outputs: Vec<usize>,
    ) -> Result<(), Fault> {
        let name = named(definition.text("name"), rounds);
        // What is not in a loop takes as much in the file.
        let own = if rounds.is_empty() { 0 } else { name.len() + 400 };
        self.spend(own + 16 * (inputs.len() + outputs.len()))?;
        self.unrolled.functions.push(Function { name, definition, does, inputs, outputs });
        Ok(())
    }

    /// The first input in round 0, later the other one of the round before; `order` says which is which.
    fn begin(
        &mut self,
        definition: &'a Message,
        loops: &[&'a str],
        arguments: &str,
        order: [usize; 2],
    ) -> Result<(), Fault> {
        let id = loop_of(definition, arguments);
        if loops.last() != Some(&id) {
            return Err(Fault::new(format!(
                "is outside of its loop `{}`: its last `repeat_id` is another",
                brief(id)
            )));
        }
        let [outside, before] = order.map(|n| definition.texts("input").nth(n));
        let (Some(outside), Some(before)) = (outside, before) else {
            return Err(Fault::new("takes two inputs, what comes in and what the round before has made"));
        };
        self.each_round(loops, |unroll, rounds| {
            unroll.push(definition, Does::Identity, rounds, |unroll| {
                let mut earlier = rounds.clone();
                let place = match earlier.pop() {
                    Some((_, 0)) | None => unroll.place(outside, &earlier)?,
                    Some((id, round)) => {
                        earlier.push((id, round - 1));
                        unroll.place(before, &earlier)?
                    }
                };
                Ok(vec![place])
            })
        })
    }

    fn end(&mut self, definition: &'a Message, loops: &[&'a str]) -> Result<(), Fault> {
        let id = loop_of(definition, "repeat_param");
        let last = self.times(id)?.checked_sub(1).ok_or_else(|| Fault::new("ends a loop of no rounds"))?;
        let input = only_input(definition)?;
        self.each_round(loops, |unroll, rounds| {
            unroll.push(definition, Does::Identity, rounds, |unroll| {
                let mut inside = rounds.clone();
                inside.push((id, last));
                Ok(vec![unroll.place(input, &inside)?])
            })
        })
    }

    fn steps_in(&mut self, definition: &'a Message, mut loops: Vec<&'a str>) -> Result<(), Fault> {
        let id = loop_of(definition, "recurrent_param");
        if loops.pop() != Some(id) {
            return Err(Fault::new(format!(
                "is outside of its loop `{}`: its last `repeat_id` is another",
                brief(id)
            )));
        }
        let (times, axis) = (self.times(id)?, axis_of(definition));
        let input = only_input(definition)?;
        let output = definition.texts("output").next().unwrap_or_default();
        let steps = self.declared.get(input).map(|declared| declared.definition.sizes("shape"));
        let size = steps.and_then(|sizes| sizes.get(usize::try_from(axis).ok()?).copied());
        if size.is_none_or(|size| size < 1 || (size as usize) < times) {
            let reason = format!(
                "takes {times} steps along axis {axis} of `{}`, whose declared shape has {} there",
                brief(input),
                size.map_or("no size".to_owned(), |size| format!("the size {size}")),
            );
            return Err(Fault::new(reason));
        }
        self.each_round(&loops, |unroll, rounds| {
            let from = unroll.place(input, rounds)?;
            let mut to = Vec::new();
            for step in 0..times {
                let mut inside = rounds.clone();
                inside.push((id, step));
                to.push(unroll.place(output, &inside)?);
            }
            unroll.push_with(definition, Does::Split(axis), rounds, vec![from], to)
        })
    }

    fn steps_out(&mut self, definition: &'a Message, loops: &[&'a str]) -> Result<(), Fault> {
        let id = loop_of(definition, "recurrent_param");
        let (times, axis) = (self.times(id)?, axis_of(definition));
        let length = definition.message("recurrent_param").map_or(0, |arguments| arguments.integer("length"));
        let length =
            usize::try_from(length).ok().filter(|length| (1..=times).contains(length)).ok_or_else(|| {
                Fault::new(format!(
                    "collects {length} steps of the loop `{}`, which makes {times}",
                    brief(id)
                ))
            })?;
        let input = only_input(definition)?;
        self.each_round(loops, |unroll, rounds| {
            unroll.push(definition, Does::Stack(axis), rounds, |unroll| {
                (0..length)
                    .map(|step| {
                        let mut inside = rounds.clone();
                        inside.push((id, step));
                        unroll.place(input, &inside)
                    })
                    .collect()
            })
        })
    }

    /// The instance of the variable `name` that something in these rounds means.
    fn place(&self, name: &str, rounds: &Rounds<'a>) -> Result<usize, Fault> {
        let Some(declared) = self.declared.get(name) else {
            // A round of a loop by the name that it gets.
            return self
                .instances
                .get(name)
                .copied()
                .ok_or_else(|| Fault::new(format!("names `{}`, which is not declared", brief(name))));
        };
        let mut place = 0;
        for id in &declared.loops {
            let round = rounds.iter().rev().find(|(other, _)| other == id).map(|&(_, round)| round);
            let round = round.ok_or_else(|| {
                Fault::new(format!(
                    "is outside of the loop `{}` and names `{}` inside it; what leaves a loop goes through RepeatEnd or RecurrentOutput",
                    brief(id),
                    brief(name)
                ))
            })?;
            place = place * self.times(id)? + round;
        }
        Ok(declared.first + place)
    }
}

fn loop_of<'a>(definition: &'a Message, arguments: &str) -> &'a str {
    definition.message(arguments).map(|arguments| arguments.text("repeat_id")).unwrap_or_default()
}

fn axis_of(definition: &Message) -> i64 {
    definition.message("recurrent_param").map_or(0, |arguments| arguments.integer("axis"))
}

fn only_input(definition: &Message) -> Result<&str, Fault> {
    let mut inputs = definition.texts("input");
    match (inputs.next(), inputs.next()) {
        (Some(input), None) => Ok(input),
        _ => Err(Fault::new(format!("takes one input, got {}", definition.texts("input").count()))),
    }
}

/// The name that something called `name` gets in these rounds: `{R}` in it becomes `[i]`, and without that `_R[i]` is appended.
fn named(name: &str, rounds: &Rounds<'_>) -> String {
    let mut named = name.to_owned();
    for (id, round) in rounds {
        let braces = format!("{{{id}}}");
        if named.contains(&braces) {
            named = named.replace(&braces, &format!("[{round}]"));
        } else {
            named = format!("{named}_{id}[{round}]");
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn rounds_are_part_of_the_names() {
        assert_eq!(named("x", &vec![]), "x");
        assert_eq!(named("x", &vec![("R", 2), ("Q", 0)]), "x_R[2]_Q[0]");
        assert_eq!(named("b{R}/affine/W", &vec![("R", 1)]), "b[1]/affine/W");
        assert_eq!(named("b{Q}", &vec![("R", 1), ("Q", 3)]), "b[3]_R[1]");
    }
}
