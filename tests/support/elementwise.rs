//! Every function of single elements with inputs to test it on.

use candle_core::{Device, Tensor};
use layerfn::Result;
use layerfn::functions as f;

use crate::{flat, values};

/// Where the elements of an input lie.
#[derive(Clone, Copy)]
pub enum Domain {
    /// From −4 to 4.
    Wide,
    /// From −0.95 to 0.95.
    Unit,
    /// From 0.3 to 2.
    Positive,
    /// From 1.1 to 4.
    AboveOne,
    /// From 0.05 to 0.95.
    Share,
}

impl Domain {
    /// A tensor of such elements.
    ///
    /// # Panics
    /// If candle cannot make it.
    #[must_use]
    pub fn tensor(self, dims: &[usize], seed: u64) -> Tensor {
        let (low, high) = match self {
            Self::Wide => (-4.0, 4.0),
            Self::Unit => (-0.95, 0.95),
            Self::Positive => (0.3, 2.0),
            Self::AboveOne => (1.1, 4.0),
            Self::Share => (0.05, 0.95),
        };
        // Sequences of neighbouring seeds overlap, and equal elements lie on the edges of some functions.
        let values =
            flat(&values(dims, seed * 1_000_003)).into_iter().map(|x| low + (high - low) * (x + 1.0) / 2.0);
        Tensor::from_vec(values.collect(), dims, &Device::Cpu).expect("as many values as the sizes say")
    }
}

/// A function of the elements at one place of one or more tensors.
pub struct Elementwise {
    /// Its name.
    pub name: &'static str,
    /// The call.
    pub call: fn(&[Tensor]) -> Result<Tensor>,
    /// What it is tested on.
    pub domains: &'static [Domain],
    /// Whether its gradient is the derivative of its value: not where it passes as if nothing had been rounded.
    pub is_smooth: bool,
}

macro_rules! functions {
    ($($kind:ident { $($name:ident($($domain:ident),+ $(; $($argument:expr),+)?);)* })*) => {
        /// All of them.
        pub const FUNCTIONS: &[Elementwise] = &[$($(Elementwise {
            name: stringify!($name),
            call: |t| match t {
                functions!(@inputs $($domain),+; a b c) => functions!(@call $name $($domain),+; a b c $(; $($argument),+)?),
                _ => panic!("{} takes another number of tensors than {}", stringify!($name), t.len()),
            },
            domains: &[$(Domain::$domain),+],
            is_smooth: functions!(@smooth $kind),
        }),*),*];
    };
    (@inputs $a:ident; $x:ident $y:ident $z:ident) => { [$x] };
    (@inputs $a:ident, $b:ident; $x:ident $y:ident $z:ident) => { [$x, $y] };
    (@inputs $a:ident, $b:ident, $c:ident; $x:ident $y:ident $z:ident) => { [$x, $y, $z] };
    (@call $name:ident $a:ident; $x:ident $y:ident $z:ident $(; $($argument:expr),+)?) => {
        f::$name($x $($(, $argument)+)?)
    };
    (@call $name:ident $a:ident, $b:ident; $x:ident $y:ident $z:ident $(; $($argument:expr),+)?) => {
        f::$name($x, $y $($(, $argument)+)?)
    };
    (@call $name:ident $a:ident, $b:ident, $c:ident; $x:ident $y:ident $z:ident $(; $($argument:expr),+)?) => {
        f::$name($x, $y, $z $($(, $argument)+)?)
    };
    (@smooth smooth) => { true };
    (@smooth steps) => { false };
}

functions! {
    smooth {
        relu(Wide);
        leaky_relu(Wide; 0.1);
        relu6(Wide);
        elu(Wide; 0.7);
        selu(Wide);
        selu_with(Wide; 1.5, 0.7);
        gelu(Wide);
        gelu_exact(Wide);
        mish(Wide);
        silu(Wide);
        softplus(Wide);
        softplus_with(Wide; 2.5);
        softsign(Wide);
        sigmoid(Wide);
        log_sigmoid(Wide);
        hard_sigmoid(Wide);
        tanh(Wide);
        tanh_shrink(Wide);
        hard_tanh(Wide);
        identity(Wide);
        abs(Wide);
        exp(Wide);
        log(Positive);
        sin(Wide);
        cos(Wide);
        tan(Unit);
        sinc(Wide);
        asin(Unit);
        acos(Unit);
        atan(Wide);
        sinh(Wide);
        cosh(Wide);
        asinh(Wide);
        acosh(AboveOne);
        atanh(Unit);
        erf(Wide);
        add2(Wide, Wide);
        sub2(Wide, Wide);
        mul2(Wide, Wide);
        div2(Wide, Positive);
        pow2(Positive, Wide);
        atan2(Positive, Wide);
        maximum2(Wide, Wide);
        minimum2(Wide, Wide);
        add_scalar(Wide; 0.7);
        mul_scalar(Wide; -0.7);
        pow_scalar(Wide; 3.0);
        r_sub_scalar(Wide; 0.7);
        r_div_scalar(Positive; 0.7);
        r_pow_scalar(Wide; 1.3);
        maximum_scalar(Wide; 0.25);
        minimum_scalar(Wide; 0.25);
        reset_nan(Wide; 1.0);
        reset_inf(Wide; 1.0);
        clip_by_value(Wide, Unit, Positive);
        squared_error(Wide, Wide);
        absolute_error(Wide, Wide);
        huber_loss(Wide, Wide; 1.5);
        epsilon_insensitive_loss(Wide, Wide; 0.5);
    }
    steps {
        binary_sigmoid(Wide);
        binary_tanh(Wide);
        round(Wide);
        ceil(Wide);
        floor(Wide);
        sign(Wide; 0.5);
        clip_grad_by_value(Wide, Unit, Positive);
        equal(Wide, Wide);
        not_equal(Wide, Wide);
        greater(Wide, Wide);
        greater_equal(Wide, Wide);
        less(Wide, Wide);
        less_equal(Wide, Wide);
        logical_and(Wide, Wide);
        logical_or(Wide, Wide);
        logical_xor(Wide, Wide);
        equal_scalar(Wide; 1.0);
        not_equal_scalar(Wide; 1.0);
        greater_scalar(Wide; 1.0);
        greater_equal_scalar(Wide; 1.0);
        less_scalar(Wide; 1.0);
        less_equal_scalar(Wide; 1.0);
        logical_not(Wide);
        isnan(Wide);
        isinf(Wide);
    }
}

/// Functions of two tensors of one shape.
pub const OF_ONE_SHAPE: &[Elementwise] = &[
    Elementwise {
        name: "sigmoid_cross_entropy",
        call: |t| f::sigmoid_cross_entropy(&t[0], &t[1]),
        domains: &[Domain::Wide, Domain::Share],
        is_smooth: true,
    },
    Elementwise {
        name: "binary_cross_entropy",
        call: |t| f::binary_cross_entropy(&t[0], &t[1]),
        domains: &[Domain::Share, Domain::Share],
        is_smooth: true,
    },
    Elementwise {
        name: "binary_error",
        call: |t| f::binary_error(&t[0], &t[1]),
        domains: &[Domain::Share, Domain::Share],
        is_smooth: false,
    },
    Elementwise {
        name: "where_cond",
        call: |t| f::where_cond(&f::greater_scalar(&t[0], 0.0)?, &t[0], &t[1]),
        domains: &[Domain::Wide, Domain::Wide],
        is_smooth: true,
    },
];
