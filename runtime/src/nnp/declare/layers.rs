//! Functions with parameters: layers where the paths are those of a layer, and calls of the function elsewhere.

use super::super::Fault;
use super::function::{Code, Function, Gives, Options};
use super::text::{list, number, sizes};

/// The code for the function, if it is one of these kinds.
pub(super) fn code(of: &Function<'_>) -> Result<Option<(Code, Gives)>, Fault> {
    let code = match of.kind {
        "Affine" => affine(of)?,
        "BatchNormalization" => batch_normalization(of)?,
        "BinaryConnectAffine" => {
            affine_of(of, "binary_connect_affine", "bicon_affine", &["W", "Wb"], binary(of))?
        }
        "BinaryConnectConvolution" => {
            convolution_of(of, "binary_connect_convolution", "bicon_conv", &["W", "Wb"], binary(of))?
        }
        "BinaryWeightAffine" => {
            affine_of(of, "binary_weight_affine", "bwn_affine", &["W", "Wb", "alpha"], binary(of))?
        }
        "BinaryWeightConvolution" => {
            convolution_of(of, "binary_weight_convolution", "bwn_conv", &["W", "Wb", "alpha"], binary(of))?
        }
        "Convolution" => convolution(of)?,
        "Deconvolution" => deconvolution(of)?,
        "DepthwiseConvolution" => depthwise(of, false)?,
        "DepthwiseDeconvolution" => depthwise(of, true)?,
        "Embed" => embed(of)?,
        "FusedBatchNormalization" => fused_batch_normalization(of)?,
        "GroupNormalization" | "InstanceNormalization" | "LayerNormalization" => rows(of)?,
        "INQAffine" => affine_of(of, "inq_affine", "inq_affine", &["W", "I"], inq(of)?)?,
        "INQConvolution" => convolution_of(of, "inq_convolution", "inq_conv", &["W", "I"], inq(of)?)?,
        "MinMaxQuantize" => min_max(of)?,
        "PReLU" => prelu(of)?,
        "SpectralNorm" => spectral_norm(of)?,
        "WeightNormalization" => weight_normalization(of)?,
        _ => return Ok(None),
    };
    Ok(Some((code, Gives::Tensor)))
}

/// The parameters behind the input, the last of which is a bias that may be missing.
fn with_bias<'n>(of: &Function<'_>, names: &[&'n str]) -> (Vec<(usize, &'n str)>, Option<usize>) {
    let bias = (of.inputs.len() > names.len() + 1).then_some(names.len() + 1);
    let names = names.iter().copied().chain(bias.map(|_| "b"));
    (names.enumerate().map(|(n, name)| (n + 1, name)).collect(), bias)
}

fn no_bias(bias: Option<usize>) -> Option<(&'static str, String)> {
    bias.is_none().then(|| ("with_bias", "false".to_owned()))
}

fn not_a_layer(of: &Function<'_>) -> Fault {
    let paths: Vec<_> =
        of.inputs.iter().filter_map(|operand| operand.parameter).map(|(path, _)| path).collect();
    Fault::new(format!(
        "has parameters that no layer of its kind has, {paths:?}, and cannot be declared without them"
    ))
}

fn affine(of: &Function<'_>) -> Result<Code, Fault> {
    let (parameters, bias) = with_bias(of, &["W"]);
    if let (Some(scope), Some([_, outmaps @ ..])) = (of.scope("affine", &parameters), of.shape(1))
        && !outmaps.is_empty()
    {
        let options = [of.integer("base_axis", 1), no_bias(bias)].into_iter().flatten().collect();
        return of.layer("affine", vec![sizes(outmaps)], options, scope);
    }
    let given =
        vec![of.input(0)?, of.input(1)?, of.optional(bias), of.arguments.integer("base_axis").to_string()];
    Ok(Code::Function { callee: "functions::affine".to_owned(), given })
}

/// A product with weights of which the layer alone knows what it does to them.
fn affine_of(
    of: &Function<'_>,
    callee: &'static str,
    name: &str,
    weights: &[&str],
    own: Options,
) -> Result<Code, Fault> {
    let (parameters, bias) = with_bias(of, weights);
    let (Some(scope), Some([_, outmaps @ ..])) = (of.scope(name, &parameters), of.shape(1)) else {
        return Err(not_a_layer(of));
    };
    let options = [of.integer("base_axis", 1), no_bias(bias)].into_iter().flatten().chain(own).collect();
    of.layer(callee, vec![sizes(outmaps)], options, scope)
}

fn convolution_of(
    of: &Function<'_>,
    callee: &'static str,
    name: &str,
    weights: &[&str],
    own: Options,
) -> Result<Code, Fault> {
    let (parameters, bias) = with_bias(of, weights);
    let (Some(scope), Some([outmaps, _, kernel @ ..])) = (of.scope(name, &parameters), of.shape(1)) else {
        return Err(not_a_layer(of));
    };
    let options =
        window(of)?.into_iter().chain(of.integer("group", 1)).chain(no_bias(bias)).chain(own).collect();
    of.layer(callee, vec![outmaps.to_string(), sizes(kernel)], options, scope)
}

fn binary(of: &Function<'_>) -> Options {
    of.number("quantize_zero_to", 1.0).into_iter().collect()
}

fn inq(of: &Function<'_>) -> Result<Options, Fault> {
    let iterations = of.arguments.counts("inq_iterations")?;
    let algorithm = match of.arguments.text("selection_algorithm") {
        "random" => None,
        _ => Some(("selection_algorithm", "functions::SelectionAlgorithm::LargestAbs".to_owned())),
    };
    let options = [
        of.integer("num_bits", 4),
        Some(("inq_iterations", list(&iterations))),
        algorithm,
        of.integer("seed", -1),
    ];
    Ok(options.into_iter().flatten().collect())
}

/// Options for where the windows lie.
fn window(of: &Function<'_>) -> Result<Options, Fault> {
    let mut options: Options = of.integer("base_axis", 1).into_iter().collect();
    for (name, usual) in [("pad", 0), ("stride", 1), ("dilation", 1)] {
        let found = of.arguments.window(name)?;
        if found.iter().any(|&size| size != usual) {
            options.push((name, sizes(&found)));
        }
    }
    Ok(options)
}

/// The axes of a kernel among those of a weight.
fn kernel(dims: &[usize], channel_last: bool) -> &[usize] {
    match (dims, channel_last) {
        ([_, kernel @ .., _], true) | ([_, _, kernel @ ..], false) => kernel,
        _ => &[],
    }
}

fn convolution(of: &Function<'_>) -> Result<Code, Fault> {
    let (parameters, bias) = with_bias(of, &["W"]);
    let channel_last = of.arguments.flag("channel_last");
    let dims = of.shape(1).unwrap_or_default();
    let window = window(of)?;
    match (of.scope("conv", &parameters), kernel(dims, channel_last)) {
        (Some(scope), kernel) if !kernel.is_empty() => {
            let more = [of.integer("group", 1), of.flag("channel_last", false), no_bias(bias)];
            let options = window.into_iter().chain(more.into_iter().flatten()).collect();
            of.layer("conv", vec![dims[0].to_string(), sizes(kernel)], options, scope)
        }
        _ => raw(of, "convolution", "ConvGeometry", bias),
    }
}

fn deconvolution(of: &Function<'_>) -> Result<Code, Fault> {
    let (parameters, bias) = with_bias(of, &["W"]);
    let channel_last = of.arguments.flag("channel_last");
    let (dims, group) = (of.shape(1).unwrap_or_default(), of.arguments.count("group")?);
    let padding = of.arguments.window("output_padding")?;
    match (of.scope("deconv", &parameters), kernel(dims, channel_last)) {
        (Some(scope), kernel) if !kernel.is_empty() => {
            let outmaps = if channel_last { dims[dims.len() - 1] } else { dims[1] };
            let padding = padding.iter().any(|&size| size != 0).then(|| ("output_padding", sizes(&padding)));
            let more = [of.integer("group", 1), of.flag("channel_last", false), padding, no_bias(bias)];
            let options = window(of)?.into_iter().chain(more.into_iter().flatten()).collect();
            of.layer("deconvolution", vec![(outmaps * group).to_string(), sizes(kernel)], options, scope)
        }
        _ if padding.iter().any(|&size| size != 0) => Err(not_a_layer(of)),
        _ => raw(of, "deconvolution", "DeconvGeometry", bias),
    }
}

fn depthwise(of: &Function<'_>, transposed: bool) -> Result<Code, Fault> {
    let (parameters, bias) = with_bias(of, &["W"]);
    let name = if transposed { "depthwise_deconv" } else { "depthwise_conv" };
    let option = if transposed { of.integer("divisor", 1) } else { of.integer("multiplier", 1) };
    match (of.scope(name, &parameters), of.shape(1)) {
        (Some(scope), Some([_, kernel @ ..])) if !kernel.is_empty() => {
            let options = window(of)?.into_iter().chain(option).chain(no_bias(bias)).collect();
            let callee = if transposed { "depthwise_deconvolution" } else { "depthwise_convolution" };
            of.layer(callee, vec![sizes(kernel)], options, scope)
        }
        _ => raw_depthwise(of, transposed, bias),
    }
}

/// The arguments `pad`, `stride` and `dilation` of a geometry.
fn windows(of: &Function<'_>) -> Result<String, Fault> {
    let mut code = Vec::new();
    for (name, usual) in [("pad", 0), ("stride", 1), ("dilation", 1)] {
        let found = of.arguments.window(name)?;
        let found = if found.is_empty() { usual.to_string() } else { sizes(&found) };
        code.push(format!("&{found}.into()"));
    }
    Ok(code.join(", "))
}

fn raw(of: &Function<'_>, function: &str, geometry: &str, bias: Option<usize>) -> Result<Code, Fault> {
    if of.arguments.flag("channel_last") {
        return Err(not_a_layer(of));
    }
    let (x, w, b) = (of.input(0)?, of.input(1)?, of.optional(bias));
    let dims = match of.inputs[1].sizes {
        [_, _, kernel @ ..] if kernel.iter().all(|&size| size > 0) && !kernel.is_empty() => sizes(kernel),
        _ => return Err(Fault::new("has weights of which the file does not say how large they are")),
    };
    let (windows, group) = (windows(of)?, of.arguments.count("group")?);
    let base_axis = of.arguments.integer("base_axis");
    let geometry =
        format!("functions::{geometry}::new({x}.dims(), &{dims}.into(), {windows}, {group}, {base_axis})?");
    Ok(Code::Expression(format!("functions::{function}({x}, {w}, {b}, &{geometry})")))
}

fn raw_depthwise(of: &Function<'_>, transposed: bool, bias: Option<usize>) -> Result<Code, Fault> {
    let (x, w, b) = (of.input(0)?, of.input(1)?, of.optional(bias));
    let dims = match of.inputs[1].sizes {
        [_, kernel @ ..] if kernel.iter().all(|&size| size > 0) && !kernel.is_empty() => sizes(kernel),
        _ => return Err(Fault::new("has weights of which the file does not say how large they are")),
    };
    let (windows, base_axis) = (windows(of)?, of.arguments.integer("base_axis"));
    let w = format!("&{}.unsqueeze(1)?", w.trim_start_matches('&'));
    Ok(Code::Expression(match transposed {
        false => format!(
            "functions::convolution({x}, {w}, {b}, &functions::ConvGeometry::depthwise({x}.dims(), &{dims}.into(), \
             {windows}, {base_axis})?)"
        ),
        true => format!(
            "functions::deconvolution({x}, {w}, {b}, &functions::DeconvGeometry::depthwise({x}.dims(), {}, \
             &{dims}.into(), {windows}, {base_axis})?)",
            of.arguments.count("divisor")?
        ),
    }))
}

/// The bias and the scale of a normalization, and where what follows them begins.
fn bias_and_scale(of: &Function<'_>) -> (Vec<(usize, &'static str)>, usize) {
    let mut places = Vec::new();
    for (flag, name) in [("no_bias", "beta"), ("no_scale", "gamma")] {
        if !of.arguments.flag(flag) {
            places.push((places.len() + 1, name));
        }
    }
    let next = places.len() + 1;
    (places, next)
}

fn statistics(of: &Function<'_>) -> Result<Options, Fault> {
    let axes = of.arguments.counts("axes")?;
    let axes = (axes != [1]).then(|| ("axes", if axes.len() == 1 { sizes(&axes) } else { list(&axes) }));
    let options = [
        axes,
        of.number("decay_rate", 0.9),
        of.number("eps", 1e-5),
        Some(("batch_stat", of.arguments.flag("batch_stat").to_string())),
    ];
    let parts = match of.kind {
        "BatchNormalization" => [of.flag("no_bias", false), of.flag("no_scale", false)],
        _ => [None, None],
    };
    Ok(options.into_iter().chain(parts).flatten().collect())
}

fn one_output(of: &Function<'_>) -> Result<(), Fault> {
    match of.arguments.n_outputs() {
        1 => Ok(()),
        _ => Err(Fault::new("gives its statistics as outputs, which cannot be declared")),
    }
}

fn batch_normalization(of: &Function<'_>) -> Result<Code, Fault> {
    one_output(of)?;
    let (mut parameters, next) = bias_and_scale(of);
    parameters.extend([(next, "mean"), (next + 1, "var")]);
    let scope = of.scope("bn", &parameters).ok_or_else(|| not_a_layer(of))?;
    of.layer("bn", vec![], statistics(of)?, scope)
}

fn fused_batch_normalization(of: &Function<'_>) -> Result<Code, Fault> {
    one_output(of)?;
    let parameters = [(1, "beta"), (2, "gamma"), (3, "mean"), (4, "var")];
    let scope = of.scope("bn", &parameters).ok_or_else(|| not_a_layer(of))?;
    let mut options = statistics(of)?;
    let added = of.inputs.get(5).map(|added| added.code.clone());
    match (of.arguments.text("nonlinearity"), added) {
        ("relu", added) => {
            options.extend(added.map(|added| ("z", added)));
            of.layer("fused_batch_normalization", vec![], options, scope)
        }
        (_, None) => of.layer("bn", vec![], options, scope),
        _ => Err(Fault::new("adds an input without a ReLU, which cannot be declared")),
    }
}

fn rows(of: &Function<'_>) -> Result<Code, Fault> {
    one_output(of)?;
    let name = match of.kind {
        "GroupNormalization" => "group_normalization",
        "InstanceNormalization" => "instance_normalization",
        _ => "layer_normalization",
    };
    let (parameters, _) = bias_and_scale(of);
    let batch_axis = of.arguments.counts("batch_axis")?;
    let groups = (name == "group_normalization").then(|| of.arguments.integer("num_groups").to_string());
    let channel = (name != "layer_normalization").then(|| of.arguments.integer("channel_axis"));
    if let Some(scope) = of.scope(name, &parameters) {
        let batch_axis = (batch_axis != [0]).then(|| ("batch_axis", list(&batch_axis)));
        let channel = channel.filter(|&axis| axis != 1).map(|axis| ("channel_axis", axis.to_string()));
        let more = [
            batch_axis,
            channel,
            of.number("eps", 1e-5),
            of.flag("no_bias", false),
            of.flag("no_scale", false),
        ];
        return of.layer(name, groups.into_iter().collect(), more.into_iter().flatten().collect(), scope);
    }
    let place = |name: &str| parameters.iter().find(|(_, other)| *other == name).map(|(place, _)| *place);
    let mut given = vec![of.input(0)?, of.optional(place("beta")), of.optional(place("gamma"))];
    given.extend(groups.into_iter().chain(channel.map(|axis| axis.to_string())));
    given.extend([format!("&{}", list(&batch_axis)), number(of.arguments.number("eps"))]);
    Ok(Code::Expression(format!("functions::{name}({}).map(|(y, ..)| y)", given.join(", "))))
}

fn prelu(of: &Function<'_>) -> Result<Code, Fault> {
    let shared = match of.shape(1) {
        Some([]) => Some(true),
        Some([_]) => Some(false),
        _ => None,
    };
    let base_axis = of.arguments.integer("base_axis");
    match (of.scope("prelu", &[(1, "slope")]), shared) {
        (Some(scope), Some(true)) => of.layer("prelu", vec![], vec![], scope),
        (Some(scope), Some(false)) => {
            let shared = Some(("shared", "false".to_owned()));
            let options = [of.integer("base_axis", 1), shared].into_iter().flatten().collect();
            of.layer("prelu", vec![], options, scope)
        }
        _ => Ok(of.function("functions::prelu", vec![base_axis.to_string()])),
    }
}

fn embed(of: &Function<'_>) -> Result<Code, Fault> {
    match (of.scope("embed", &[(1, "W")]), of.shape(1)) {
        (Some(scope), Some([n, features])) => {
            of.layer("embed", vec![n.to_string(), features.to_string()], vec![], scope)
        }
        _ => Ok(of.function("functions::embed", vec![])),
    }
}

fn weight_normalization(of: &Function<'_>) -> Result<Code, Fault> {
    match of.scope("wn", &[(1, "g")]) {
        Some(scope) => {
            let options = [of.integer("dim", 0), of.number("eps", 1e-12)];
            of.layer("weight_normalization", vec![], options.into_iter().flatten().collect(), scope)
        }
        None => {
            let more = vec![of.arguments.integer("dim").to_string(), number(of.arguments.number("eps"))];
            Ok(of.function("functions::weight_normalization", more))
        }
    }
}

fn spectral_norm(of: &Function<'_>) -> Result<Code, Fault> {
    if of.arguments.flag("output_u") {
        return Err(Fault::new("gives its vector as an output, which cannot be declared"));
    }
    let scope = of.scope("spectral-norm", &[(1, "u")]).ok_or_else(|| not_a_layer(of))?;
    let test = Some(("test", of.arguments.flag("test").to_string()));
    let options = [of.integer("dim", 0), of.integer("itr", 1), of.number("eps", 1e-12), test];
    of.layer("spectral_norm", vec![], options.into_iter().flatten().collect(), scope)
}

fn min_max(of: &Function<'_>) -> Result<Code, Fault> {
    let parameters = [(1, "qr_min"), (2, "qr_max"), (3, "ql_min"), (4, "ql_max")];
    let scope = of.scope("min_max_quantize", &parameters).ok_or_else(|| not_a_layer(of))?;
    let options = [
        of.number("decay", 0.999),
        of.flag("x_min_max", false),
        of.flag("ema", false),
        of.flag("ste_fine_grained", true),
        of.number("eps", 0.01),
    ];
    of.layer("min_max_quantize", vec![], options.into_iter().flatten().collect(), scope)
}
