//! Elements taken from places that follow, axis by axis, from the place of the result: transposition, slices, padding,
//! repetition.

use super::blend::Blend;
use super::parallel::for_each_chunk;
use super::{Float, blend};

/// The place of what is taken from nowhere: padding.
pub(crate) const HOLE: usize = usize::MAX;

/// Elements per piece of work.
const CHUNK: usize = 1 << 12;

/// Sides of the blocks in which a matrix is transposed.
const BLOCK: usize = 16;

/// Which places of an axis of `n` the places of a result's axis take their elements from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Along {
    /// `start`, `start + step`, ..: `len` of them.
    Steps { n: usize, start: usize, step: isize, len: usize },
    /// These, of which some may be a [`HOLE`].
    Table { n: usize, places: Vec<usize> },
}

impl Along {
    /// An axis as it is.
    pub(crate) fn all(n: usize) -> Self {
        Self::Steps { n, start: 0, step: 1, len: n }
    }

    /// The only element of an axis, `len` times.
    pub(crate) fn repeated(len: usize) -> Self {
        Self::Steps { n: 1, start: 0, step: 0, len }
    }

    pub(crate) fn is_all(&self) -> bool {
        *self == Self::all(self.n())
    }

    /// The size of the axis that is read.
    pub(crate) fn n(&self) -> usize {
        match self {
            Self::Steps { n, .. } | Self::Table { n, .. } => *n,
        }
    }

    /// The size of the result's axis.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Steps { len, .. } => *len,
            Self::Table { places, .. } => places.len(),
        }
    }

    /// All places in order.
    pub(crate) fn places(&self) -> Vec<usize> {
        match self {
            Self::Steps { start, step, len, .. } => {
                (0..*len).map(|i| start.wrapping_add_signed(step * i as isize)).collect()
            }
            Self::Table { places, .. } => places.clone(),
        }
    }

    /// For each place of the axis that is read where its element goes to, if no element goes to two places.
    pub(crate) fn inverse(&self) -> Option<Self> {
        match self {
            _ if self.is_all() => return Some(self.clone()),
            Self::Steps { step: 0, len: 2.., .. } => return None,
            _ => {}
        }
        let mut places = vec![HOLE; self.n()];
        for (i, place) in self.places().into_iter().enumerate().filter(|(_, place)| *place != HOLE) {
            if std::mem::replace(&mut places[place], i) != HOLE {
                return None;
            }
        }
        Some(Self::Table { n: self.len(), places })
    }

    /// For each place of the axis that is read the sum over all that was taken from there.
    fn sums(&self) -> Blend {
        let taken = self.places().into_iter().enumerate().filter(|(_, place)| *place != HOLE);
        Blend::new(self.len(), self.n(), taken.map(|(i, place)| (place, i, 1.0)).collect())
    }
}

/// From where a tensor's elements are taken.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// For each axis of the result the axis of the input that it reads.
    pub(crate) order: Vec<usize>,
    /// For each axis of the result what it takes from there.
    pub(crate) axes: Vec<Along>,
}

impl Places {
    /// Without a change of the order.
    pub(crate) fn in_order(axes: Vec<Along>) -> Self {
        Self { order: (0..axes.len()).collect(), axes }
    }

    /// Sizes of the input's axes.
    pub(crate) fn input_dims(&self) -> Vec<usize> {
        let mut dims = vec![0; self.order.len()];
        for (axis, along) in self.order.iter().zip(&self.axes) {
            dims[*axis] = along.n();
        }
        dims
    }

    /// Sizes of the result's axes.
    pub(crate) fn dims(&self) -> Vec<usize> {
        self.axes.iter().map(Along::len).collect()
    }

    /// The elements; `fill` in the holes.
    pub(crate) fn gather<T: Float>(&self, fill: T, x: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        if x.is_empty() {
            out.fill(fill);
            return;
        }
        Lines::of(self).gather(fill, x, out);
    }

    /// The transpose of [`gather`](Self::gather): each element of the input gets the sum over the places that it went to.
    pub(crate) fn scatter<T: Float>(&self, dy: &[T], dx: &mut [T]) {
        if dy.is_empty() {
            dx.fill(T::ZERO);
            return;
        }
        let mut sums = None; // what is left of `dy`
        let mut inverse = Vec::new();
        let mut dims = self.dims();
        for (axis, along) in self.axes.iter().enumerate() {
            inverse.push(along.inverse().unwrap_or_else(|| {
                let (outer, inner) =
                    (dims[..axis].iter().product::<usize>(), dims[axis + 1..].iter().product::<usize>());
                let mut sum = vec![T::ZERO; outer * along.n() * inner];
                let of = sums.as_deref().unwrap_or(dy);
                if along.n() == 1 {
                    blend::sum_middle([outer, along.len(), inner], 1.0, of, &mut sum);
                } else {
                    along.sums().apply(outer, inner, of, &mut sum);
                }
                sums = Some(sum);
                dims[axis] = along.n();
                Along::all(along.n())
            }));
        }
        let mut order = vec![0; self.order.len()];
        let mut axes = vec![Along::all(0); self.order.len()];
        for (axis, (from, along)) in self.order.iter().zip(inverse).enumerate() {
            (order[*from], axes[*from]) = (axis, along);
        }
        Self { order, axes }.gather(T::ZERO, sums.as_deref().unwrap_or(dy), dx);
    }
}

/// An axis of the result, in elements of the input.
enum Line {
    Steps { step: isize, len: usize },
    Table(Vec<usize>),
}

impl Line {
    fn len(&self) -> usize {
        match self {
            Self::Steps { len, .. } => *len,
            Self::Table(offsets) => offsets.len(),
        }
    }

    /// How far its places lie behind the least of them, and how far that lies before the first.
    fn offsets(&self) -> (Vec<usize>, usize) {
        match self {
            Self::Steps { step, len } => {
                let distance = |i: usize| step.unsigned_abs() * i;
                let before = if *step < 0 { distance(len - 1) } else { 0 };
                // Not below 0, where one might be taken for a hole.
                (
                    (0..*len).map(|i| if *step < 0 { distance(len - 1 - i) } else { distance(i) }).collect(),
                    before,
                )
            }
            Self::Table(offsets) => (offsets.clone(), 0),
        }
    }
}

/// The axes of the result from the first to the last; those that step on where the next one ends have become one.
struct Lines {
    /// Where in the input they begin.
    start: usize,
    lines: Vec<Line>,
}

impl Lines {
    fn of(places: &Places) -> Self {
        let dims = places.input_dims();
        let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>();
        let (mut first, mut lines) = (0, Vec::<Line>::new());
        for (axis, along) in places.order.iter().zip(&places.axes) {
            let stride = stride(*axis);
            let line = match along {
                Along::Steps { start, step, len, .. } => {
                    first += start * stride;
                    Line::Steps { step: step * stride as isize, len: *len }
                }
                Along::Table { places, .. } => Line::Table(
                    places.iter().map(|place| if *place == HOLE { HOLE } else { place * stride }).collect(),
                ),
            };
            match (lines.last_mut(), line) {
                (_, Line::Steps { len: 1, .. }) => {}
                (Some(Line::Steps { step: outer, len: n }), Line::Steps { step, len })
                    if *outer == step * len as isize =>
                {
                    (*outer, *n) = (step, *n * len);
                }
                (_, line) => lines.push(line),
            }
        }
        if lines.is_empty() {
            lines.push(Line::Steps { step: 1, len: 1 });
        }
        Self { start: first, lines }
    }

    fn gather<T: Float>(mut self, fill: T, x: &[T], out: &mut [T]) {
        let Some(last) = self.lines.pop() else { return };
        let outer = Rows::new(self.start, &self.lines);
        let across = self.lines.iter().position(|line| matches!(line, Line::Steps { step: 1, .. }));
        match (across, &last) {
            (Some(axis), Line::Steps { step, len }) if !(-1..=1).contains(step) && !outer.has_holes() => {
                let before = self.lines[..axis].iter().map(Line::len).product();
                transpose(&outer, before, self.lines[axis].len(), (*step, *len), x, out);
            }
            _ => rows(&outer, &runs(&last), last.len(), fill, x, out),
        }
    }
}

/// The offsets of the rows of the result.
struct Rows {
    start: usize,
    tables: Vec<Vec<usize>>,
}

impl Rows {
    fn new(start: usize, lines: &[Line]) -> Self {
        let (tables, before): (Vec<_>, Vec<_>) = lines.iter().map(Line::offsets).unzip();
        Self { start: start - before.iter().sum::<usize>(), tables }
    }

    fn has_holes(&self) -> bool {
        self.tables.iter().any(|table| table.contains(&HOLE))
    }

    /// Calls `f` with the offset of each row from `first` on, [`HOLE`] for one that reads nothing, as long as it says so.
    fn for_each(&self, first: usize, mut f: impl FnMut(usize) -> bool) {
        let mut indices = vec![0; self.tables.len()];
        let mut rest = first;
        for (index, table) in indices.iter_mut().zip(&self.tables).rev() {
            (*index, rest) = (rest % table.len(), rest / table.len());
        }
        loop {
            let mut offset = self.start;
            for (index, table) in indices.iter().zip(&self.tables) {
                match table[*index] {
                    HOLE => {
                        offset = HOLE;
                        break;
                    }
                    more => offset = offset.wrapping_add(more),
                }
            }
            if !f(offset) {
                return;
            }
            for (index, table) in indices.iter_mut().zip(&self.tables).rev() {
                *index += 1;
                if *index < table.len() {
                    break;
                }
                *index = 0;
            }
        }
    }
}

/// Neighbours of a row that come from places at equal distances.
struct Run {
    /// `None` for a hole.
    from: Option<(usize, isize)>,
    len: usize,
}

fn runs(line: &Line) -> Vec<Run> {
    let offsets = match line {
        Line::Steps { step, len } => return vec![Run { from: Some((0, *step)), len: *len }],
        Line::Table(offsets) => offsets,
    };
    let mut runs = Vec::<Run>::new();
    for &offset in offsets {
        let place = (offset != HOLE).then_some(offset);
        match (runs.last_mut(), place) {
            (Some(Run { from: None, len }), None) => *len += 1,
            (Some(Run { from: Some((start, step)), len: len @ 1 }), Some(place)) => {
                (*step, *len) = (place.wrapping_sub(*start) as isize, 2);
            }
            (Some(Run { from: Some((start, step)), len }), Some(place))
                if start.wrapping_add_signed(*step * *len as isize) == place =>
            {
                *len += 1;
            }
            (_, place) => runs.push(Run { from: place.map(|place| (place, 1)), len: 1 }),
        }
    }
    runs
}

/// Rows of `len` elements, each in `runs`.
fn rows<T: Float>(outer: &Rows, runs: &[Run], len: usize, fill: T, x: &[T], out: &mut [T]) {
    let per_chunk = (CHUNK / len).max(1);
    let work = out.len();
    for_each_chunk(
        out,
        per_chunk * len,
        work,
        || (),
        |(), chunk, out| {
            let mut out = out.chunks_exact_mut(len);
            outer.for_each(chunk * per_chunk, |offset| {
                let Some(mut row) = out.next() else { return false };
                for run in runs {
                    let part = row.split_off_mut(..run.len).unwrap_or_default();
                    match run.from {
                        Some((start, step)) if offset != HOLE => {
                            take(x, offset.wrapping_add(start), step, part)
                        }
                        _ => part.fill(fill),
                    }
                }
                out.len() > 0
            });
        },
    );
}

fn take<T: Float>(x: &[T], start: usize, step: isize, out: &mut [T]) {
    match step {
        1 => out.copy_from_slice(&x[start..][..out.len()]),
        0 => out.fill(x[start]),
        _ => {
            let mut place = start;
            for out in out {
                *out = x[place];
                place = place.wrapping_add_signed(step);
            }
        }
    }
}

/// Elements that are neighbours in the input stand on an axis of `across` places of the result, behind which there are others
/// and the last one, with `(step, len)`. They are moved in blocks that stay in the nearest cache.
fn transpose<T: Float>(
    outer: &Rows,
    before: usize,
    across: usize,
    (step, len): (isize, usize),
    x: &[T],
    out: &mut [T],
) {
    // Pieces of work are to have equally many rows, and blocks are to be filled.
    let height = (BLOCK..=2 * BLOCK).rev().find(|height| across.is_multiple_of(*height)).unwrap_or(across);
    let between = out.len() / (before * across * len);
    let work = out.len();
    for_each_chunk(
        out,
        height * between * len,
        work,
        || (),
        |(), chunk, out| {
            let mut row = 0;
            outer.for_each(chunk * height * between, |offset| {
                for top in (0..height).step_by(BLOCK) {
                    for left in (0..len).step_by(BLOCK) {
                        let width = BLOCK.min(len - left);
                        for line in top..height.min(top + BLOCK) {
                            let out = &mut out[(line * between + row) * len + left..][..width];
                            let mut place = (offset + line).wrapping_add_signed(step * left as isize);
                            for out in out {
                                *out = x[place];
                                place = place.wrapping_add_signed(step);
                            }
                        }
                    }
                }
                row += 1;
                row < between
            });
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(places: &Places, x: &[f32]) -> Vec<f32> {
        let (input, dims) = (places.input_dims(), places.dims());
        let n: usize = dims.iter().product();
        let element = |mut i: usize| {
            let mut from = vec![0; dims.len()];
            for axis in (0..dims.len()).rev() {
                let place = places.axes[axis].places()[i % dims[axis]];
                i /= dims[axis];
                if place == HOLE {
                    return -1.0;
                }
                from[places.order[axis]] = place;
            }
            x[from.iter().zip(&input).fold(0, |at, (i, n)| at * n + i)]
        };
        (0..n).map(element).collect()
    }

    fn cases() -> Vec<Places> {
        let steps = |n, start, step, len| Along::Steps { n, start, step, len };
        let table = |n, places: &[usize]| Along::Table { n, places: places.to_vec() };
        let permuted = |order: &[usize], dims: &[usize]| Places {
            order: order.to_vec(),
            axes: order.iter().map(|axis| Along::all(dims[*axis])).collect(),
        };
        vec![
            Places::in_order(vec![]),
            Places::in_order(vec![Along::all(3), Along::all(4)]),
            Places::in_order(vec![steps(5, 1, 2, 2), Along::all(3), steps(4, 3, -1, 4)]),
            Places::in_order(vec![Along::repeated(3), Along::all(4), Along::repeated(2)]),
            Places::in_order(vec![table(3, &[HOLE, 0, 1, 2, HOLE]), table(4, &[2, 1, 0, 1, 2, 3, 3, HOLE])]),
            permuted(&[1, 0], &[40, 96]),
            permuted(&[1, 0], &[33, 37]),
            permuted(&[2, 0, 1], &[3, 17, 64]),
            permuted(&[0, 2, 1], &[4, 19, 48]),
            permuted(&[3, 1, 0, 2], &[5, 2, 7, 32]),
            Places { order: vec![1, 0], axes: vec![steps(20, 19, -1, 20), steps(30, 2, 3, 9)] },
            Places {
                order: vec![1, 2, 0],
                axes: vec![Along::all(16), table(3, &[2, HOLE, 2]), Along::all(9)],
            },
        ]
    }

    #[test]
    fn elements_are_taken_from_their_places() {
        for places in cases() {
            let n = places.input_dims().iter().product();
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let want = naive(&places, &x);
            let mut y = vec![f32::NAN; want.len()];
            places.gather(-1.0, &x, &mut y);
            assert_eq!(y, want, "{places:?}");
        }
    }

    #[test]
    fn what_was_taken_is_added_up_where_it_came_from() {
        for places in cases() {
            let n = places.input_dims().iter().product::<usize>();
            let from = naive(&places, &(0..n).map(|i| i as f32).collect::<Vec<_>>());
            let dy: Vec<f32> = (0..from.len()).map(|i| (i * 7 % 13) as f32).collect();
            let mut want = vec![0.0; n];
            for (from, dy) in from.iter().zip(&dy).filter(|(from, _)| **from >= 0.0) {
                want[*from as usize] += dy;
            }
            let mut dx = vec![f32::NAN; n];
            places.scatter(&dy, &mut dx);
            assert_eq!(dx, want, "{places:?}");
        }
    }
}
