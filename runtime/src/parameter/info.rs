//! Descriptions of layers, which `#[parametric_function]` generates from the declaration.

/// A layer's name, arguments and parameters, as its documentation shows them.
#[derive(Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The function's name.
    pub name: &'static str,
    /// The scope of its parameters; empty if the layer opens none.
    pub scope: &'static str,
    /// The first paragraph of the documentation.
    pub doc: &'static str,
    /// The kind of the layer.
    pub family: Family,
    /// The factors whose product is the number of multiply-adds in one call, in terms of the layer's variables;
    /// `None` if it is not declared.
    pub multiply_adds: Option<&'static str>,
    /// Arguments in order, required ones and options alike.
    pub arguments: &'static [ArgumentInfo],
    /// Parameters in the order of their declaration.
    pub parameters: &'static [ParameterInfo],
}

/// The kind of a layer, which pictures of networks show as a colour.
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
    /// Recurrences along a sequence.
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
    /// Default, as written in the declaration, or "none" for an option that has no value by default; `None` if
    /// the argument is required.
    pub default: Option<&'static str>,
    /// Description.
    pub doc: &'static str,
}

/// A parameter of a layer.
#[derive(Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Name in the layer's scope; for one of a list, without its number.
    pub name: &'static str,
    /// The numbers of a list of parameters, such as `i in 0..n`, which are appended to the name. `None` for a
    /// single parameter.
    pub index: Option<&'static str>,
    /// Shape formula over the layer's variables.
    pub shape: &'static str,
    /// Whether it is registered as trainable.
    pub need_grad: bool,
    /// Initial value, such as `w_init, or Initializer::zeros()`: the option, and the default if it is not set.
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
    /// The description of the layer.
    const INFO: &'static LayerInfo;

    /// The output of the layer.
    type Output;

    /// Runs the layer.
    ///
    /// # Errors
    /// Those of the layer, as [`Error::InLayer`](crate::Error::InLayer).
    fn call(self) -> crate::Result<Self::Output>;
}
