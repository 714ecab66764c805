//! The macros in a crate that knows layerfn by another name, and in one that has it from a facade.

/// Under another name.
pub mod renamed {
    use nn::prelude::*;

    /// Adds a learned shift.
    #[parametric_function(
        scope = "shift",
        crate = nn,
        params(
            /// The shift.
            b: [n] = 1.0,
        )
    )]
    pub fn shift(x: &Tensor) -> Result<Tensor> {
        let n = x.dim(1)?;
        Ok(x.broadcast_add(&param!(b)?)?)
    }

    network! {
        /// Layers of both crates.
        pub fn head(n: usize)
        < hidden: { affine(n) -> bn -> relu } -> residual { shift } -> for i in 0..2 { out[i]: affine(n) } >
    }

    /// A network of every form of stage.
    ///
    /// # Errors
    /// Those of its stages.
    pub fn forward(x: &Tensor) -> Result<Tensor> {
        let net = network! {
            |x|
            < concat(1) { a: head(2), use(x) -> shared b: affine(3) -> (|x: &Tensor| x * 2.0) } as joined
           -> if true { affine(4, name = "chosen") } else { _ }
           -> mul { _, tuple { use(joined), _ } -> (|(_, x): &(Tensor, Tensor)| x.tanh()) } >
        };
        net.forward(x)
    }
}

/// Behind a facade.
pub mod behind_facade {
    use facade::layerfn::prelude::*;

    /// Multiplies with a learned number.
    #[parametric_function(
        scope = "scale",
        crate = facade::layerfn,
        params(
            /// The number.
            s: [] = 2.0,
        )
    )]
    pub fn scale(x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_mul(&param!(s)?)?)
    }

    network! {
        /// A layer and a number.
        pub fn head(n: usize) < affine(n) -> scale >
    }

    /// A network.
    ///
    /// # Errors
    /// Those of its stages.
    pub fn forward(x: &Tensor) -> Result<Tensor> {
        network! { first: head(2) -> relu -> affine(4) }.forward(x)
    }
}

#[cfg(test)]
mod tests {
    use nn::prelude::*;

    #[test]
    fn networks_run_under_another_name_and_behind_a_facade() -> Result<()> {
        let x = Tensor::ones((3, 2), DType::F32, &Device::Cpu)?;
        for (forward, paths) in [
            (
                super::renamed::forward as fn(&Tensor) -> Result<Tensor>,
                &["a/hidden/affine/W", "a/shift/b", "a/out1/affine/W", "b/affine/W", "chosen/affine/W"][..],
            ),
            (super::behind_facade::forward, &["first/affine/W", "first/scale/s", "affine/W"]),
        ] {
            ParameterStore::new().enter(|| -> Result<()> {
                assert_eq!(forward(&x)?.dims(), [3, 4]);
                let parameters = get_parameters();
                for path in paths {
                    assert!(parameters.get(path).is_some(), "{path}");
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
