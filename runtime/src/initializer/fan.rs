//! The He and Glorot rules: ranges of random values that keep the variance of activations or gradients.

fn kernel_size(kernel: &[usize]) -> f64 {
    kernel.iter().map(|&size| size as f64).product()
}

/// Standard deviation of He et al. (2015), forward case: σ = √(2 / (N·K)).
///
/// N is `inmaps` and K the product of `kernel`; pass `&[]` for a fully connected layer.
#[must_use]
pub fn calc_normal_std_he_forward(inmaps: usize, _outmaps: usize, kernel: &[usize]) -> f64 {
    (2.0 / (kernel_size(kernel) * inmaps as f64)).sqrt()
}

/// Standard deviation of He et al. (2015), backward case: σ = √(2 / (M·K)), M being `outmaps`.
#[must_use]
pub fn calc_normal_std_he_backward(_inmaps: usize, outmaps: usize, kernel: &[usize]) -> f64 {
    (2.0 / (kernel_size(kernel) * outmaps as f64)).sqrt()
}

/// Standard deviation of Glorot & Bengio (2010): σ = √(2 / (N·K + M)).
///
/// This is the rule of NNabla 1.0; NNabla today computes [`calc_normal_std_xavier`].
#[must_use]
pub fn calc_normal_std_glorot(inmaps: usize, outmaps: usize, kernel: &[usize]) -> f64 {
    (2.0 / (inmaps as f64 * kernel_size(kernel) + outmaps as f64)).sqrt()
}

/// Limits (−b, b) of Glorot & Bengio (2010) for the uniform distribution: b = √(6 / (N·K + M)).
///
/// This is the rule of NNabla 1.0 and the default of the layers here; NNabla today computes
/// [`calc_uniform_lim_xavier`].
#[must_use]
pub fn calc_uniform_lim_glorot(inmaps: usize, outmaps: usize, kernel: &[usize]) -> (f64, f64) {
    symmetric((6.0 / (inmaps as f64 * kernel_size(kernel) + outmaps as f64)).sqrt())
}

/// Standard deviation that NNabla's `calc_normal_std_glorot` computes today: σ = √(2 / (K·(N + M))).
#[must_use]
pub fn calc_normal_std_xavier(inmaps: usize, outmaps: usize, kernel: &[usize]) -> f64 {
    (2.0 / (kernel_size(kernel) * (inmaps as f64 + outmaps as f64))).sqrt()
}

/// Limits that NNabla's `calc_uniform_lim_glorot` computes today: b = √(6 / (K·(N + M))).
#[must_use]
pub fn calc_uniform_lim_xavier(inmaps: usize, outmaps: usize, kernel: &[usize]) -> (f64, f64) {
    symmetric((6.0 / (kernel_size(kernel) * (inmaps as f64 + outmaps as f64))).sqrt())
}

fn symmetric(b: f64) -> (f64, f64) {
    (-b, b)
}
