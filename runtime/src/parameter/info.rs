//! What a layer says of itself; `#[parametric_function]` writes it from the one declaration.

/// A layer's name, arguments and parameters, as its documentation shows them.
#[derive(Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The function's name.
    pub name: &'static str,
    /// The scope its parameters live in; empty if the layer opens none.
    pub scope: &'static str,
    /// The first paragraph of the documentation.
    pub doc: &'static str,
    /// What kind of work it does.
    pub family: Family,
    /// The factors whose product is the number of multiplications with an addition in one call, over the layer's variables; `None` if
    /// it is not declared.
    pub multiply_adds: Option<&'static str>,
    /// Arguments in order, required ones and options alike.
    pub arguments: &'static [ArgumentInfo],
    /// Parameters in the order of their declaration.
    pub parameters: &'static [ParameterInfo],
}

/// What kind of work a layer does; pictures of networks tell it by colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Products of the whole sample with a matrix.
    Affine,
    /// Convolutions and their transposes.
    Convolution,
    /// Layers that set mean and scale.
    Normalization,
    /// Functions of each element.
    Activation,
    /// Maxima and means of neighbours.
    Pooling,
    /// Layers that change the sample at random in training.
    Dropout,
    /// Steps along a sequence.
    Recurrent,
    /// Weights that are looked up.
    Embedding,
    /// Weights that follow from the input.
    Attention,
    /// Everything else.
    #[default]
    Other,
}

/// An argument of a layer.
#[derive(Debug, PartialEq, Eq)]
pub struct ArgumentInfo {
    /// Name.
    pub name: &'static str,
    /// Type, as written in the declaration.
    pub ty: &'static str,
    /// Default, as written in the declaration, or "none" for an option that has no value then; `None` if the argument is required.
    pub default: Option<&'static str>,
    /// Description.
    pub doc: &'static str,
}

/// A parameter of a layer.
#[derive(Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Name under the layer's scope; without its number, for one of a list.
    pub name: &'static str,
    /// The numbers of a list of parameters, such as `i in 0..n`: each stands right behind the name. `None` for one parameter.
    pub index: Option<&'static str>,
    /// Shape formula over the layer's variables.
    pub shape: &'static str,
    /// Whether it is registered as trainable.
    pub need_grad: bool,
    /// Initial value, such as `w_init, or Initializer::zeros()`: the option, or what is taken if it is not set.
    pub initial: &'static str,
    /// The condition under which it exists; `None` if it always does.
    pub when: Option<&'static str>,
    /// Description.
    pub doc: &'static str,
}

/// A call of a layer that is ready to run; `#[parametric_function]` implements it for every layer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer, so it cannot be a stage of a network",
    label = "this returns `{Self}`",
    note = "a stage is a layer, a network, or a function `fn(&Tensor, ..) -> Result<Tensor>`; wrap anything else in a \
            closure: `(|x: &Tensor| Ok(..))`"
)]
pub trait ParametricFunction {
    /// What the layer says of itself.
    const INFO: &'static LayerInfo;

    /// What the layer returns.
    type Output;

    /// Runs the layer.
    ///
    /// # Errors
    /// Those of the layer, as [`Error::InLayer`](crate::Error::InLayer).
    fn call(self) -> crate::Result<Self::Output>;
}
