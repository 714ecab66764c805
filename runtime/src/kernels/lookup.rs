//! Rows of a table by index.

use super::Float;
use super::parallel::for_each_chunk;

/// `out[i] = table[indices[i]]`, rows of `len` elements; indices must be inside the table.
pub(crate) fn gather_rows<T: Float>(table: &[T], indices: &[usize], len: usize, out: &mut [T]) {
    let work = out.len();
    for_each_chunk(
        out,
        len,
        work,
        || (),
        |(), i, out| {
            out.copy_from_slice(&table[indices[i] * len..][..len]);
        },
    );
}

/// `table[indices[i]] += rows[i]`, in the order of `i`; an index may come up very often.
pub(crate) fn scatter_add_rows<T: Float>(rows: &[T], indices: &[usize], len: usize, table: &mut [T]) {
    if len == 0 {
        return;
    }
    let (order, ends) = sorted(indices, table.len() / len);
    for_each_chunk(
        table,
        len,
        rows.len(),
        || vec![0.0; len],
        |sums, index, table| {
            let start = if index == 0 { 0 } else { ends[index - 1] };
            let places = &order[start..ends[index]];
            if places.is_empty() {
                return;
            }
            sums.iter_mut().zip(&*table).for_each(|(sum, value)| *sum = value.wide());
            for place in places {
                let row = &rows[place * len..][..len];
                sums.iter_mut().zip(row).for_each(|(sum, addend)| *sum += addend.wide());
            }
            table.iter_mut().zip(sums).for_each(|(value, sum)| *value = T::of(*sum));
        },
    );
}

/// The places of all indices, those of equal ones together and in their order; and for each index below `n` where its places
/// end.
fn sorted(indices: &[usize], n: usize) -> (Vec<usize>, Vec<usize>) {
    let mut ends = vec![0; n];
    for &index in indices {
        ends[index] += 1;
    }
    let mut before = 0;
    for end in &mut ends {
        before += std::mem::replace(end, before); // where its places begin
    }
    let mut order = vec![0; indices.len()];
    for (place, &index) in indices.iter().enumerate() {
        order[ends[index]] = place;
        ends[index] += 1;
    }
    (order, ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_where_they_belong() {
        let rows: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut table = [0.5f32; 8];
        scatter_add_rows(&rows, &[2, 0, 2, 3, 2, 0], 2, &mut table);
        assert_eq!(table, [12.5, 14.5, 0.5, 0.5, 12.5, 15.5, 6.5, 7.5]);
    }

    #[test]
    fn an_index_may_come_up_ten_million_times() {
        let rows = vec![0.1f32; 10_000_000];
        let mut table = [0.0f32; 2];
        scatter_add_rows(&rows, &vec![1; rows.len()], 1, &mut table);
        let exact = f64::from(0.1f32) * 1e7;
        assert!(table[0] == 0.0 && (f64::from(table[1]) / exact - 1.0).abs() < 1e-7, "{table:?}");
    }
}
