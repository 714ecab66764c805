//! The guide: how to declare, train, save, ship and serve a network.
//!
//! The chapters are also a book: `mdbook build docs`.

macro_rules! chapters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])* #[doc = include_str!(concat!("../guide/", stringify!($name), ".md"))] pub mod $name {})*
    };
}

chapters! {
    first_network
    parameters
    own_layer
    testing_layers
    #[doc = include_str!("macro_docs/pictures.md")]
    networks
    training
    files
    shipping
    freezing
    recurrent
    quantization
    gpus
    threads
    several_machines
    speed
    coming_from
}
