use layerfn::functions::{add_position_embedding, rotary_position_embedding};
use layerfn_tests::{flat, gate, values};

#[test]
fn each_position_gets_its_row() {
    for (dims, axis, most) in [
        (vec![3, 4], 0, 3),
        (vec![3, 2, 4], 0, 5),
        (vec![2, 3, 4], 1, 4),
        (vec![2, 3, 2, 2], 1, 3),
        (vec![0, 2, 4], 0, 5),
        (vec![3, 0, 4], 0, 5),
        (vec![2, 3, 0], 1, 3),
    ] {
        let features = dims[dims.len() - 1];
        gate(|t| add_position_embedding(&t[0], &t[1], axis), &[values(dims, 1), values([most, features], 2)]);
    }
    let message = |w: [usize; 2], axis| {
        add_position_embedding(&values([3, 2, 4], 1), &values(w, 2), axis).unwrap_err().to_string()
    };
    assert_eq!(message([2, 4], 0), "`W` must have the shape (3 or more positions, 4), got [2, 4]");
    assert_eq!(
        message([3, 4], 2),
        "`axis` must be an axis of the input [3, 2, 4] before the last one, got 2"
    );
}

#[test]
fn pairs_turn_with_the_position() {
    for (dims, axis) in
        [(vec![3, 4], 0), (vec![3, 2, 6], 0), (vec![2, 3, 4], 1), (vec![0, 4], 0), (vec![3, 0], 0)]
    {
        gate(|t| rotary_position_embedding(&t[0], axis, 100.0), &[values(dims, 1)]);
    }
    // The product of two positions follows from how far apart they are.
    let row = values([1, 6], 1).broadcast_as((5, 6)).unwrap().contiguous().unwrap();
    let turned = rotary_position_embedding(&row, 0, 10000.0).unwrap();
    let products = flat(&turned.matmul(&turned.t().unwrap()).unwrap());
    assert!((products[1] - products[19]).abs() < 1e-12 && (products[1] - products[2]).abs() > 1e-3);
    let odd = rotary_position_embedding(&values([2, 3], 1), 0, 1e4).unwrap_err().to_string();
    assert_eq!(odd, "`inp` must have an even number of features, got [2, 3]");
    let base = rotary_position_embedding(&values([2, 4], 1), 0, 0.0).unwrap_err().to_string();
    assert!(base.starts_with("`base` must be above 0"), "{base}");
}
