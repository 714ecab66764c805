//! Suggestions for misspelled names.

/// The candidate with the fewest edits, if they are few enough.
pub(crate) fn nearest<'a>(path: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let few = |edits: usize, candidate: &str| edits <= path.len().max(candidate.len()) / 2;
    candidates
        // The difference in length is a lower bound of the edits that costs nothing.
        .filter(|candidate| few(path.len().abs_diff(candidate.len()), candidate))
        .map(|candidate| (edits(path, candidate), candidate))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, candidate)| few(*edits, candidate))
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
