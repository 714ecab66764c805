//! Declared networks, compiled and run: they give what the file says, from its parameters.

use std::path::Path;

use candle_core::{DType, Tensor};
use layerfn::nnp::Nnp;
use layerfn::{ParameterStore, Result};
use layerfn_tests::support::compare::{Tolerance, difference};
use layerfn_tests::support::fixtures::{Tensors, folder, read_json};
use serde::Deserialize;

/// What a declared network gives.
trait Given {
    fn all(self) -> Vec<Tensor>;
}

impl Given for Tensor {
    fn all(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Given for Vec<Tensor> {
    fn all(self) -> Vec<Tensor> {
        self
    }
}

impl Given for (Tensor, Tensor) {
    fn all(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}

type Declared = (&'static str, &'static str, fn(&[Tensor]) -> Result<Vec<Tensor>>);

/// The committed declarations: the fixture, the network, and the module with its function and inputs.
macro_rules! declared {
    ($($id:literal $network:literal $module:ident $function:ident($($x:ident)+);)+) => {
        $(#[allow(unreachable_pub, clippy::all)] mod $module;)+

        const DECLARED: &[Declared] = &[$(($id, $network, |inputs| {
            let [$($x),+] = inputs else { panic!("other inputs than {}", stringify!($($x)+)) };
            Ok($module::$function($($x),+)?.all())
        })),+];
    };
}

declared! {
    "activations" "net" activations_net net(x);
    "arithmetic" "net" arithmetic_net net(x z);
    "attention" "net" attention_net net(x mask);
    "binary" "net" binary_net net(x);
    "console_project" "Main" console_project_main main_network(input noise target);
    "console_project" "MainRuntime" console_project_mainruntime main_runtime(input noise);
    "console_project" "MainValidation" console_project_mainvalidation main_validation(input noise target);
    "conv1d3d" "net" conv1d3d_net net(x v);
    "embedding" "bag_of_words" embedding_bag_of_words bag_of_words(tokens);
    "lenet" "lenet" lenet_lenet lenet(image);
    "losses" "net" losses_net net(x label flag);
    "lowrank" "net" lowrank_net net(x);
    "lstm_unrolled" "net" lstm_unrolled_net net(x h0 c0);
    "minimal" "n" minimal_n n(x);
    "mlp_all_binary" "net" mlp_all_binary_net net(x);
    "mlp_binary" "net" mlp_binary_net net(x);
    "mlp" "net" mlp_net net(x);
    "mlp_no_version" "net" mlp_no_version_net net(x);
    "mlp_odd_archive" "net" mlp_odd_archive_net net(x);
    "mlp_protobuf_parameters" "net" mlp_protobuf_parameters_net net(x);
    "mlp_text" "net" mlp_text_net net(x);
    "mobilenet" "mobilenet" mobilenet_mobilenet mobilenet(x);
    "norms" "net" norms_net net(x);
    "quantized" "net" quantized_net net(x);
    "recurrent_loop" "Main" recurrent_loop_main main_network(input delay_initial);
    "recurrent_nstep" "net" recurrent_nstep_net net(x);
    "repeat" "Main" repeat_main main_network(x);
    "resnet" "resnet" resnet_resnet resnet(x);
    "shapes" "net" shapes_net net(x);
    "training" "runtime" training_runtime runtime(x);
    "training_text" "runtime" training_text_runtime runtime(x);
    "training_text" "training" training_text_training training(x y);
    "training_text" "validation" training_text_validation validation(x y);
    "training" "training" training_training training(x y);
    "training" "validation" training_validation validation(x y);
    "two_in_two_out" "both" two_in_two_out_both both(x0 x1);
    "two_in_two_out" "left_only" two_in_two_out_left_only left_only(x0 x1);
    "unet" "unet" unet_unet unet(x);
}

#[derive(Deserialize)]
struct Manifest {
    networks: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    file: String,
    tensors: String,
    runs: Vec<Run>,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Run {
    via: String,
    name: String,
    outputs: Vec<String>,
}

#[test]
fn declared_networks_give_the_outputs_of_the_file() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = folder().join("networks");
    let manifest: Manifest = serde_json::from_value(read_json(&folder.join("manifest.json"))?)?;
    let mut faults = Vec::new();
    for &(id, network, declared) in DECLARED {
        let Some(case) = manifest.networks.iter().find(|case| case.id == id) else { continue };
        if let Err(error) = compare(&folder, case, network, declared, &mut faults) {
            faults.push(format!("{id}, `{network}`: {error}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// The runs of the network against what the declaration gives, and its parameters against those of the file.
fn compare(
    folder: &Path,
    case: &Case,
    network: &str,
    declared: fn(&[Tensor]) -> Result<Vec<Tensor>>,
    faults: &mut Vec<String>,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let file = Nnp::open(folder.join(&case.file))?;
    let tensors = Tensors::load(&folder.join(&case.tensors))?;
    let loaded = file.network(network)?;
    let outputs: Vec<_> = loaded.outputs().map(str::to_owned).collect();
    for (n, run) in case.runs.iter().enumerate().filter(|(_, run)| run.via == "loader" && run.name == network)
    {
        let inputs = loaded.inputs().map(|name| Ok(tensors.get(&format!("run{n}.input.{name}"))?.clone()));
        let inputs = inputs.collect::<std::result::Result<Vec<_>, String>>()?;
        // Parameters that the file does not hold are made with the model. They all are there before the declared network runs.
        let model = ParameterStore::new().enter(|| loaded.model())?;
        let store = model.store();
        let before: Vec<_> = store.parameters().paths().map(str::to_owned).collect();
        let found = store.enter(|| declared(&inputs))?;
        let after: Vec<_> = store.parameters().paths().map(str::to_owned).collect();
        let mut fault = |text: String| faults.push(format!("{}, `{network}`, run {n}: {text}", case.id));
        if before != after {
            fault(format!("has the parameters {after:?}, expected {before:?}"));
        }
        if found.len() != run.outputs.len() {
            fault(format!("gives {} outputs, expected {}", found.len(), run.outputs.len()));
        }
        for (name, found) in outputs.iter().zip(&found) {
            let want = tensors.float(&format!("run{n}.output.{name}"))?;
            if let Some(text) = difference(&found.to_dtype(DType::F32)?, &want, Some(case.tolerance)) {
                fault(format!("`{name}` {text}"));
            }
        }
    }
    Ok(())
}
