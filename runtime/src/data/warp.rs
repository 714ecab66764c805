//! Geometric changes of images: shifts, affine maps, cut squares.

pub(super) struct Image {
    pub(super) values: Vec<f32>,
    pub(super) planes: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Image {
    fn empty(planes: usize, height: usize, width: usize) -> Self {
        Self { values: vec![0.0; planes * height * width], planes, height, width }
    }

    fn plane(&self, plane: usize) -> &[f32] {
        &self.values[plane * self.height * self.width..][..self.height * self.width]
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.width.max(1))
    }

    pub(super) fn flip_vertically(&mut self) {
        let (height, width) = (self.height, self.width);
        for plane in self.values.chunks_exact_mut((height * width).max(1)) {
            let (upper, lower) = plane.split_at_mut(height.div_ceil(2) * width);
            for (upper, lower) in upper.chunks_exact_mut(width).zip(lower.rchunks_exact_mut(width)) {
                upper.swap_with_slice(lower);
            }
        }
    }

    pub(super) fn window(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        let mut cut = Self::empty(self.planes, height, width);
        let mut to = cut.rows_mut();
        for plane in 0..self.planes {
            for row in self.plane(plane).chunks_exact(self.width).skip(top).take(height) {
                if let Some(to) = to.next() {
                    to.copy_from_slice(&row[left..left + width]);
                }
            }
        }
        drop(to);
        cut
    }

    /// Sets a square around (`row`, `column`) to 0.
    pub(super) fn clear_square(&mut self, row: usize, column: usize, side: usize) {
        let part = |center: usize, end: usize| {
            let start = center.saturating_sub(side / 2);
            start..center.saturating_add(side - side / 2).min(end)
        };
        let (rows, columns) = (part(row, self.height), part(column, self.width));
        let height = self.height;
        for (n, values) in self.rows_mut().enumerate() {
            if rows.contains(&(n % height)) {
                values[columns.clone()].fill(0.0);
            }
        }
    }
}

/// Maps each pixel of the result to a position in the image, relative to its center.
pub(super) struct Affine {
    cos: f64,
    sin: f64,
    down: f64,
    right: f64,
}

impl Affine {
    /// Enlarges by `factor`, rotates counterclockwise, and shifts down and to the right.
    pub(super) fn new(degrees: f64, factor: f64, down: f64, right: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self { cos: cos / factor, sin: sin / factor, down, right }
    }
}

/// An image shifted down and to the right; zeros fill the other sides.
pub(super) fn moved(image: &Image, down: isize, right: isize) -> Image {
    let (height, width) = (image.height, image.width);
    let mut result = Image::empty(image.planes, height, width);
    // The part of an axis that stays inside: its target, its source and its length.
    let part = |by: isize, size: usize| {
        let away = by.unsigned_abs().min(size);
        if by >= 0 { (away, 0, size - away) } else { (0, away, size - away) }
    };
    let ((to_row, from_row, n_rows), (to, from, n)) = (part(down, height), part(right, width));
    for plane in 0..image.planes {
        for row in 0..n_rows {
            let source = &image.plane(plane)[(from_row + row) * width + from..][..n];
            let start = (plane * height + to_row + row) * width + to;
            result.values[start..start + n].copy_from_slice(source);
        }
    }
    result
}

/// An image under an affine map, with linear interpolation between pixels and zeros outside.
pub(super) fn warped(image: &Image, map: &Affine) -> Image {
    let (height, width) = (image.height, image.width);
    let mut result = Image::empty(image.planes, height, width);
    let (middle_y, middle_x) = (0.5 * (height as f64 - 1.0), 0.5 * (width as f64 - 1.0));
    let pixels = height * width;
    for row in 0..height {
        let y = row as f64 - middle_y - map.down;
        for column in 0..width {
            let x = column as f64 - middle_x - map.right;
            let from_x = map.cos * x - map.sin * y + middle_x;
            let from_y = map.sin * x + map.cos * y + middle_y;
            let (top, left) = (from_y.floor(), from_x.floor());
            let (part_y, part_x) = ((from_y - top) as f32, (from_x - left) as f32);
            let corners = [
                (top, left, (1.0 - part_y) * (1.0 - part_x)),
                (top, left + 1.0, (1.0 - part_y) * part_x),
                (top + 1.0, left, part_y * (1.0 - part_x)),
                (top + 1.0, left + 1.0, part_y * part_x),
            ];
            for (y, x, weight) in corners {
                if y < 0.0 || x < 0.0 || y >= height as f64 || x >= width as f64 {
                    continue;
                }
                let source = y as usize * width + x as usize;
                for plane in 0..image.planes {
                    result.values[plane * pixels + row * width + column] +=
                        weight * image.values[plane * pixels + source];
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(values: &[f32], planes: usize, height: usize, width: usize) -> Image {
        Image { values: values.to_vec(), planes, height, width }
    }

    #[test]
    fn images_move_and_zeros_come_in() {
        let square = image(&[1., 2., 3., 4., 5., 6., 7., 8., 9.], 1, 3, 3);
        assert_eq!(moved(&square, 0, 0).values, square.values);
        assert_eq!(moved(&square, 1, 0).values, [0., 0., 0., 1., 2., 3., 4., 5., 6.]);
        assert_eq!(moved(&square, -1, 1).values, [0., 4., 5., 0., 7., 8., 0., 0., 0.]);
        assert_eq!(moved(&square, 5, -9).values, [0.; 9]);
    }

    #[test]
    fn quarter_turns_are_exact_and_a_move_is_a_warp() {
        let square = image(&[1., 2., 3., 4., 5., 6., 7., 8., 9.], 1, 3, 3);
        let turned = warped(&square, &Affine::new(90.0, 1.0, 0.0, 0.0));
        let want = [3., 6., 9., 2., 5., 8., 1., 4., 7.];
        assert!(turned.values.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{:?}", turned.values);
        assert_eq!(warped(&square, &Affine::new(0.0, 1.0, -1.0, 1.0)).values, moved(&square, -1, 1).values);
        // Twice as large: the middle stays, its neighbours are half way to the border.
        let larger = warped(&square, &Affine::new(0.0, 2.0, 0.0, 0.0));
        assert_eq!(larger.values, [3., 3.5, 4., 4.5, 5., 5.5, 6., 6.5, 7.]);
    }

    #[test]
    fn flips_windows_and_squares() {
        let mut two = image(&[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.], 2, 3, 2);
        two.flip_vertically();
        assert_eq!(two.values, [5., 6., 3., 4., 1., 2., 11., 12., 9., 10., 7., 8.]);
        assert_eq!(two.window(1, 1, 2, 1).values, [4., 2., 10., 8.]);
        two.clear_square(0, 0, 3);
        assert_eq!(two.values, [0., 0., 0., 0., 1., 2., 0., 0., 0., 0., 7., 8.]);
    }
}
