//! The parameter store, scopes and initializers.

use candle_core::{DType, Device, Var};
use layerfn::{
    Dims, Parameter, ParameterStore, Result, Rng, calc_normal_std_glorot, calc_uniform_lim_xavier,
    get_parameter_or_create, initial_value, parameter_scope,
};

use crate::Call;
use crate::functions::calls;

calls! {
    get_parameter_or_create(name: text, shape: dims, init: initializer, need_grad: flag) => {
        let store = ParameterStore::new();
        let make = || get_parameter_or_create(&*name).shape(&shape).initializer(init.clone()).need_grad(need_grad).call();
        [store.enter(make)?, store.enter(|| parameter_scope("again", make))?]
    };
    initial_value(name: text, shape: counts, init: initializer) => {
        [ParameterStore::new().enter(|| initial_value(&name, &shape, &init))?]
    };
    generate(shape: counts, init: initializer) => {
        [init.generate(&shape, DType::F32, &Device::Cpu, || Rng::new(1))?]
    };
    fans(inmaps: size, outmaps: size, kernel: counts, shape: dims) => {
        let numbers = [calc_normal_std_glorot(inmaps, outmaps, &kernel), calc_uniform_lim_xavier(inmaps, outmaps, &kernel).1];
        let _ = (numbers, shape.elem_count(), Dims::from(kernel).elem_count());
        []
    };
    resolve(sizes: per_axis, n_axes: size) => {
        sizes.resolve("pad", n_axes)?;
        []
    };
    store(first: text, second: text, third: text, value: tensor) => {
        let store = ParameterStore::new();
        let value = if value.elem_count() > 1 << 20 { value.narrow(0, 0, 0)? } else { value };
        let parameter = Parameter::new(Var::from_tensor(&value.copy()?)?, true);
        for path in [&first, &second] {
            store.set(path, parameter.clone()).err();
        }
        drop((store.get(&third), store.pop(&second), store.get(&first)));
        let all = store.parameters();
        drop((all.under(&third), all.elem_count(), all.vars()));
        let copy = store.to_device(&Device::Cpu)?;
        store.clear();
        parameter_scope(&first, || parameter_scope(&second, layerfn::current_parameter_scope));
        copy.parameters().vars().iter().map(|var| var.as_detached_tensor()).collect::<Vec<_>>()
    };
}
