"""The case table: what `generate.py` runs.  Pure data; see golden_dsl.py."""
from golden_dsl import T, Init, Apply, Add, case

SEED = 20240611
CASES = []
BEYOND = []


def add(*a, **k):
    CASES.append(case(*a, **k))


def beyond(*a, **k):
    BEYOND.append(case(*a, **k))


# ---------------------------------------------------------------- affine
add("affine_basic", "affine", {"inp": T(4, 7)}, {"n_outmaps": 5})
add("affine_base_axis2", "affine", {"inp": T(2, 3, 4, 5)}, {"n_outmaps": 6, "base_axis": 2})
add("affine_base_axis0", "affine", {"inp": T(4, 5)}, {"n_outmaps": 3, "base_axis": 0})
add("affine_tuple_outmaps", "affine", {"inp": T(3, 2, 4)}, {"n_outmaps": (2, 3)})
add("affine_no_bias", "affine", {"inp": T(4, 6)}, {"n_outmaps": 3, "with_bias": False})
add("affine_fix_parameters", "affine", {"inp": T(3, 5)}, {"n_outmaps": 4, "fix_parameters": True})
add("affine_named_nested", "affine", {"inp": T(3, 5)}, {"n_outmaps": 4, "name": "head"},
    scope=["net", "block1/fc"], notes="'/' inside a scope name opens nested scopes")
add("affine_array_init", "affine", {"inp": T(3, 5)},
    {"n_outmaps": 4, "w_init": T(5, 4), "b_init": T(4)}, keep="*")
add("affine_constant_init", "affine", {"inp": T(3, 5)},
    {"n_outmaps": 4, "w_init": Init("constant", value=0.1), "b_init": Init("constant", value=-0.5)},
    keep="*")
add("affine_default_init", "affine", {"inp": T(3, 5)}, {"n_outmaps": 4}, keep="*",
    notes="the bias starts at zero; W is whatever was drawn")
add("affine_shared_twice", "affine", {"inp": T(3, 5), "inp2": T(2, 5)},
    {"n_outmaps": 4, "name": "shared"},
    calls=[{"inputs": {"inp": "inp"}}, {"inputs": {"inp": "inp2"}}],
    notes="two calls in one scope share W and b; gradients add up")
add("affine_shared_one_fixed", "affine", {"inp": T(3, 5), "inp2": T(2, 5)},
    {"n_outmaps": 4, "name": "shared"},
    calls=[{"inputs": {"inp": "inp"}, "args": {"fix_parameters": True}},
           {"inputs": {"inp": "inp2"}}],
    notes="only the call without fix_parameters contributes to the gradient of W and b")

# ----------------------------------------------------------- convolution
IMG = T(2, 3, 7, 6)
add("conv2d_basic", "convolution", {"inp": IMG}, {"outmaps": 4, "kernel": (3, 3)})
add("conv2d_pad_stride", "convolution", {"inp": IMG},
    {"outmaps": 4, "kernel": (3, 2), "pad": (1, 2), "stride": (2, 1)})
add("conv2d_dilation", "convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (3, 3), "dilation": (2, 1), "pad": (1, 0)})
add("conv2d_group", "convolution", {"inp": T(2, 4, 5, 5)},
    {"outmaps": 6, "kernel": (3, 3), "group": 2, "pad": (1, 1)})
add("conv2d_all", "convolution", {"inp": T(2, 4, 9, 8)},
    {"outmaps": 4, "kernel": (3, 2), "pad": (2, 1), "stride": (2, 3), "dilation": (2, 2), "group": 4})
add("conv2d_no_bias", "convolution", {"inp": IMG},
    {"outmaps": 3, "kernel": (1, 1), "with_bias": False})
add("conv2d_base_axis2", "convolution", {"inp": T(2, 2, 3, 5, 5)},
    {"outmaps": 4, "kernel": (3, 3), "base_axis": 2, "pad": (1, 1)})
add("conv2d_base_axis0", "convolution", {"inp": T(3, 5, 6)},
    {"outmaps": 2, "kernel": (2, 3), "base_axis": 0})
add("conv1d", "convolution", {"inp": T(2, 3, 11)},
    {"outmaps": 4, "kernel": (3,), "pad": (2,), "stride": (2,)})
add("conv3d", "convolution", {"inp": T(2, 2, 4, 5, 4)},
    {"outmaps": 3, "kernel": (2, 3, 2), "pad": (1, 0, 1), "stride": (2, 1, 1)})
add("conv2d_fix_parameters", "convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (3, 3), "fix_parameters": True})
add("conv2d_named_nested", "convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (3, 3), "name": "c1"}, scope=["enc", "stage1"])
add("conv2d_array_init", "convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (3, 3), "w_init": T(2, 3, 3, 3), "b_init": T(2)}, keep="*")
add("conv2d_default_init", "convolution", {"inp": IMG}, {"outmaps": 2, "kernel": (2, 2)}, keep="*")

# ------------------------------------------------- depthwise_convolution
add("dwconv2d_basic", "depthwise_convolution", {"inp": IMG}, {"kernel": (3, 3)})
add("dwconv2d_multiplier", "depthwise_convolution", {"inp": IMG},
    {"kernel": (3, 2), "multiplier": 2, "pad": (1, 1), "stride": (2, 1)})
add("dwconv1d_multiplier3", "depthwise_convolution", {"inp": T(2, 3, 12)},
    {"kernel": (3,), "multiplier": 3, "dilation": (2,), "pad": (1,)})
add("dwconv2d_no_bias", "depthwise_convolution", {"inp": IMG},
    {"kernel": (2, 2), "dilation": (2, 3), "with_bias": False})
add("dwconv2d_base_axis2_fixed", "depthwise_convolution", {"inp": T(2, 2, 3, 5, 4)},
    {"kernel": (3, 3), "base_axis": 2, "multiplier": 2, "fix_parameters": True})
add("dwconv2d_named", "depthwise_convolution", {"inp": IMG},
    {"kernel": (3, 3), "name": "dw"}, scope=["mobile"])

# --------------------------------------------------------- deconvolution
SMALL = T(2, 3, 4, 5)
add("deconv2d_basic", "deconvolution", {"inp": SMALL}, {"outmaps": 4, "kernel": (3, 3)})
add("deconv2d_pad_stride", "deconvolution", {"inp": SMALL},
    {"outmaps": 2, "kernel": (4, 3), "pad": (1, 1), "stride": (2, 2)})
add("deconv2d_dilation", "deconvolution", {"inp": SMALL},
    {"outmaps": 2, "kernel": (3, 2), "dilation": (2, 3), "stride": (1, 2)})
add("deconv2d_group", "deconvolution", {"inp": T(2, 4, 4, 3)},
    {"outmaps": 6, "kernel": (3, 3), "group": 2, "stride": (2, 1), "pad": (1, 0)})
add("deconv1d", "deconvolution", {"inp": T(2, 3, 6)}, {"outmaps": 4, "kernel": (4,), "stride": (3,)})
add("deconv3d_no_bias", "deconvolution", {"inp": T(2, 2, 3, 2, 3)},
    {"outmaps": 3, "kernel": (2, 3, 2), "stride": (2, 1, 2), "with_bias": False})
add("deconv2d_base_axis2_fixed", "deconvolution", {"inp": T(2, 2, 3, 3, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "fix_parameters": True})
add("deconv2d_named", "deconvolution", {"inp": SMALL},
    {"outmaps": 2, "kernel": (2, 2), "name": "up1"}, scope=["decoder"])

# ----------------------------------------------- depthwise_deconvolution
add("dwdeconv2d_basic", "depthwise_deconvolution", {"inp": SMALL}, {"kernel": (3, 3)})
add("dwdeconv2d_divisor", "depthwise_deconvolution", {"inp": T(2, 4, 4, 5)},
    {"kernel": (3, 2), "divisor": 2, "stride": (2, 1), "pad": (1, 0)})
add("dwdeconv1d_divisor3", "depthwise_deconvolution", {"inp": T(2, 6, 5)},
    {"kernel": (3,), "divisor": 3, "dilation": (2,), "with_bias": False})
add("dwdeconv2d_dilation_stride", "depthwise_deconvolution", {"inp": SMALL},
    {"kernel": (2, 3), "dilation": (2, 2), "stride": (2, 3), "pad": (1, 2)})
add("dwdeconv2d_base_axis2_fixed", "depthwise_deconvolution", {"inp": T(2, 2, 4, 3, 3)},
    {"kernel": (2, 2), "divisor": 4, "base_axis": 2, "fix_parameters": True})
add("dwdeconv2d_named", "depthwise_deconvolution", {"inp": SMALL},
    {"kernel": (2, 2), "name": "dwup"}, scope=["decoder/a"])

# --------------------------------------------------- batch_normalization
BN = T(3, 4, 3, 2)
add("bn_train", "batch_normalization", {"inp": BN})
add("bn_test", "batch_normalization", {"inp": BN}, {"batch_stat": False})
add("bn_train_eps_decay", "batch_normalization", {"inp": BN}, {"eps": 0.1, "decay_rate": 0.75})
add("bn_test_eps", "batch_normalization", {"inp": BN}, {"eps": 0.25, "batch_stat": False})
add("bn_axis3", "batch_normalization", {"inp": BN}, {"axes": [3]})
add("bn_axis0", "batch_normalization", {"inp": T(3, 5)}, {"axes": [0]})
add("bn_matrix", "batch_normalization", {"inp": T(6, 5)})
add("bn_output_stat", "batch_normalization", {"inp": BN}, {"output_stat": True, "eps": 0.01},
    notes="outputs y, batch mean, batch variance (biased); all three receive a gradient")
add("bn_two_axes_train", "batch_normalization", {"inp": T(4, 3, 5, 2)}, {"axes": [1, 3]},
    notes="with more than one axis the library leaves the running statistics untouched")
add("bn_two_axes_test", "batch_normalization", {"inp": T(4, 3, 5, 2)},
    {"axes": [1, 2], "batch_stat": False})
add("bn_two_axes_output_stat", "batch_normalization", {"inp": T(4, 3, 5, 2)},
    {"axes": [2, 3], "output_stat": True})
add("bn_param_init", "batch_normalization", {"inp": BN},
    {"param_init": {"beta": T(1, 4, 1, 1), "gamma": Init("constant", value=2.0),
                    "mean": T(1, 4, 1, 1), "var": T(1, 4, 1, 1, dist="uniform", lo=0.5, hi=2.0)},
     "decay_rate": 0.5}, keep="*")
add("bn_fix_parameters", "batch_normalization", {"inp": BN}, {"fix_parameters": True},
    notes="running statistics are still updated")
add("bn_default_init", "batch_normalization", {"inp": BN}, keep="*")
add("bn_three_passes", "batch_normalization", {"inp": BN}, {"decay_rate": 0.8, "name": "n1"},
    scope=["stem"], keep="*", passes=[{"inputs": True}, {"inputs": True}])

# ------------------------------------------------------ mean_subtraction
add("meansub_four_passes", "mean_subtraction", {"inp": T(4, 3, 2, scale=2.0)},
    passes=[{"inputs": True}] * 3, keep="*")
add("meansub_from_state", "mean_subtraction", {"inp": T(5, 4)},
    params={"mean": T(scale=1.0), "t": T(values=[5], dtype="float32")}, passes=[{"inputs": True}])
add("meansub_no_update", "mean_subtraction", {"inp": T(4, 3, 2)}, {"update_running_mean": False},
    params={"t": T(values=[3], dtype="float32")}, passes=[{"inputs": True}])
add("meansub_base_axis2", "mean_subtraction", {"inp": T(3, 2, 4)}, {"base_axis": 2}, keep="*",
    passes=[{"inputs": True}, {"inputs": True}])
add("meansub_base_axis0", "mean_subtraction", {"inp": T(3, 4)}, {"base_axis": 0}, keep="*",
    passes=[{"inputs": True}])
add("meansub_fixed_named", "mean_subtraction", {"inp": T(4, 3)},
    {"fix_parameters": True, "name": "pre"}, scope=["net"], keep="*", passes=[{"inputs": True}],
    notes="fix_parameters changes nothing")

# ----------------------------------------------------------------- embed
add("embed_vector", "embed", {"inp": T(6, dist="int", lo=0, hi=5)}, {"n_inputs": 5, "n_features": 3})
add("embed_matrix", "embed", {"inp": T(3, 4, dist="int", lo=0, hi=7)},
    {"n_inputs": 7, "n_features": 4})
add("embed_3d_repeats", "embed", {"inp": T(2, 3, 2, dist="int", lo=0, hi=3)},
    {"n_inputs": 6, "n_features": 2}, notes="rows that are never looked up get a zero gradient")
add("embed_fixed_named", "embed", {"inp": T(3, 2, dist="int", lo=0, hi=4)},
    {"n_inputs": 4, "n_features": 3, "fix_parameters": True, "name": "tok"}, scope=["lm"])
add("embed_default_init", "embed", {"inp": T(4, dist="int", lo=0, hi=9)},
    {"n_inputs": 9, "n_features": 5}, keep="*")

# ----------------------------------------------------------------- prelu
add("prelu_shared", "prelu", {"inp": T(3, 4, 2)})
add("prelu_per_channel", "prelu", {"inp": T(3, 4, 2, 2)}, {"shared": False})
add("prelu_base_axis2", "prelu", {"inp": T(2, 3, 4)}, {"shared": False, "base_axis": 2})
add("prelu_base_axis0", "prelu", {"inp": T(3, 4)}, {"shared": False, "base_axis": 0})
add("prelu_zero_input", "prelu", {"inp": T(2, 3, values=[[0.0, -0.0, 1.0], [-1.0, 0.0, -2.0]])},
    {"shared": False}, edge=True, notes="at x = 0 the function behaves as for positive x")
add("prelu_default_init", "prelu", {"inp": T(3, 4)}, keep="*")
add("prelu_fixed_named", "prelu", {"inp": T(3, 4)}, {"fix_parameters": True, "name": "act"},
    scope=["a", "b"])

# ------------------------------------------------------------ svd_affine
add("svdaff_rank2", "svd_affine", {"inp": T(4, 6)}, {"n_outmaps": 5, "r": 2, "uv_init": T(6, 5)},
    check="svd")
add("svdaff_full_rank", "svd_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "r": 5, "uv_init": T(6, 5)}, check="svd")
add("svdaff_tuple_base_axis2", "svd_affine", {"inp": T(2, 3, 4, 2)},
    {"n_outmaps": (2, 3), "r": 3, "base_axis": 2, "uv_init": T(8, 2, 3)}, check="svd")
add("svdaff_no_bias", "svd_affine", {"inp": T(4, 6)},
    {"n_outmaps": 7, "r": 1, "uv_init": T(6, 7), "with_bias": False}, check="svd")
add("svdaff_fixed", "svd_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "r": 2, "uv_init": T(6, 5), "fix_parameters": True}, check="svd")
add("svdaff_existing", "svd_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "r": 2, "uv_init": T(6, 5), "name": "low"}, scope=["net"],
    preset={"low/svd_affine/U": T(6, 2), "low/svd_affine/V": T(2, 5)}, check="svd",
    notes="U and V already registered: uv_init is ignored")
add("svdaff_random_init", "svd_affine", {"inp": T(4, 6)}, {"n_outmaps": 5, "r": 3}, check="svd")

# ------------------------------------------------------- svd_convolution
add("svdconv_rank1", "svd_convolution", {"inp": T(2, 3, 6, 5)},
    {"outmaps": 4, "kernel": (3, 3), "r": 1, "uv_init": T(4, 3, 3, 3)}, check="svd")
add("svdconv_pad_stride", "svd_convolution", {"inp": T(2, 3, 6, 5)},
    {"outmaps": 4, "kernel": (3, 2), "r": 2, "pad": (1, 1), "stride": (2, 1),
     "uv_init": T(4, 3, 3, 2)}, check="svd")
add("svdconv_1d_no_bias", "svd_convolution", {"inp": T(2, 3, 10)},
    {"outmaps": 5, "kernel": (3,), "r": 2, "dilation": (2,), "with_bias": False,
     "uv_init": T(5, 3, 3)}, check="svd")
add("svdconv_full_rank", "svd_convolution", {"inp": T(2, 2, 5, 5)},
    {"outmaps": 3, "kernel": (2, 2), "r": 3, "uv_init": T(3, 2, 2, 2)}, check="svd")
add("svdconv_fixed_base_axis2", "svd_convolution", {"inp": T(2, 2, 3, 4, 4)},
    {"outmaps": 4, "kernel": (2, 2), "r": 2, "base_axis": 2, "uv_init": T(4, 3, 2, 2),
     "fix_parameters": True, "name": "s"}, check="svd")
add("svdconv_existing", "svd_convolution", {"inp": T(2, 2, 5, 5)},
    {"outmaps": 3, "kernel": (2, 2), "r": 2, "uv_init": T(3, 2, 2, 2)},
    preset={"svd_conv/U": T(4, 2, 2), "svd_conv/V": T(3, 4, 1, 1)}, check="svd")

# ------------------------------------------------------ cpd3_convolution
add("cpd3_exact_rank2", "cpd3_convolution", {"inp": T(2, 3, 6, 5)},
    {"outmaps": 4, "kernel": (3, 3), "r": 2, "oik_init": T(4, 3, 3, 3, dist="lowrank", rank=2),
     "max_iter": 2000, "stopping_criterion": 1e-12}, check="cpd", edge=True,
    notes="the kernel is exactly rank 2, so the approximation error should vanish")
add("cpd3_general", "cpd3_convolution", {"inp": T(2, 3, 6, 5)},
    {"outmaps": 4, "kernel": (3, 2), "r": 3, "pad": (1, 1), "stride": (2, 1),
     "oik_init": T(4, 3, 3, 2)}, check="cpd", edge=True)
add("cpd3_lambda_reg", "cpd3_convolution", {"inp": T(2, 3, 6, 5)},
    {"outmaps": 4, "kernel": (3, 3), "r": 4, "lambda_reg": 0.1, "oik_init": T(4, 3, 3, 3)},
    check="cpd", edge=True)
add("cpd3_no_stopping", "cpd3_convolution", {"inp": T(2, 3, 9)},
    {"outmaps": 5, "kernel": (3,), "r": 2, "stopping_criterion": -1.0, "max_iter": 50,
     "dilation": (2,), "with_bias": False, "oik_init": T(5, 3, 3)}, check="cpd", edge=True)
add("cpd3_fixed_named", "cpd3_convolution", {"inp": T(2, 3, 5, 5)},
    {"outmaps": 4, "kernel": (3, 3), "r": 1, "oik_init": T(4, 3, 3, 3, dist="lowrank", rank=1),
     "fix_parameters": True, "name": "cp"}, scope=["net"], check="cpd", edge=True)
add("cpd3_existing", "cpd3_convolution", {"inp": T(2, 3, 6, 5)},
    {"outmaps": 4, "kernel": (3, 3), "r": 2, "pad": (1, 1), "oik_init": T(4, 3, 3, 3)},
    preset={"cpd3_conv/I": T(2, 3, 1, 1), "cpd3_conv/O": T(4, 2, 1, 1),
            "cpd3_conv/K": T(2, 3, 3)}, check="cpd", notes="oik_init is ignored")

# ------------------------------------------------- binary_connect_affine
WB = ["Wb"]
add("bicaff_basic", "binary_connect_affine", {"inp": T(4, 6)}, {"n_outmaps": 5}, exact=WB)
add("bicaff_tuple_base_axis2", "binary_connect_affine", {"inp": T(2, 3, 4)},
    {"n_outmaps": (2, 3), "base_axis": 2}, exact=WB)
add("bicaff_no_bias", "binary_connect_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "with_bias": False}, exact=WB)
add("bicaff_fixed_named", "binary_connect_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "fix_parameters": True, "name": "fc"}, scope=["bin"], exact=WB,
    notes="Wb is still recomputed in forward")
add("bicaff_zero_weights", "binary_connect_affine", {"inp": T(3, 3)},
    {"n_outmaps": 2, "w_init": T(values=[[0.0, -0.0], [1.5, -2.5], [1e-30, -1e-30]]),
     "wb_init": T(3, 2), "b_init": T(2)}, keep="*", edge=True, exact=WB,
    notes="a zero weight, of either sign, becomes +1")
add("bicaff_large_weights", "binary_connect_affine", {"inp": T(4, 5)}, {"n_outmaps": 3},
    params={"W": T(scale=3.0)}, exact=WB,
    notes="the gradient passes straight through also where |W| > 1")

# -------------------------------------------- binary_connect_convolution
add("bicconv_basic", "binary_connect_convolution", {"inp": IMG},
    {"outmaps": 4, "kernel": (3, 3)}, exact=WB)
add("bicconv_all", "binary_connect_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (3, 2), "pad": (2, 1), "stride": (2, 1), "dilation": (2, 2)}, exact=WB)
add("bicconv_1d_no_bias", "binary_connect_convolution", {"inp": T(2, 3, 9)},
    {"outmaps": 3, "kernel": (3,), "with_bias": False}, exact=WB)
add("bicconv_base_axis2_fixed", "binary_connect_convolution", {"inp": T(2, 2, 3, 4, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "fix_parameters": True}, exact=WB)
add("bicconv_array_init", "binary_connect_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (2, 2), "w_init": T(2, 3, 2, 2), "wb_init": T(2, 3, 2, 2),
     "b_init": T(2), "name": "bc"}, scope=["n"], keep="*", exact=WB)

# -------------------------------------------------- binary_weight_affine
add("bwnaff_basic", "binary_weight_affine", {"inp": T(4, 6)}, {"n_outmaps": 5}, exact=WB)
add("bwnaff_tuple_base_axis2", "binary_weight_affine", {"inp": T(2, 3, 4)},
    {"n_outmaps": (2, 3), "base_axis": 2}, exact=WB)
add("bwnaff_no_bias", "binary_weight_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "with_bias": False}, exact=WB)
add("bwnaff_fixed_named", "binary_weight_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "fix_parameters": True, "name": "fc"}, scope=["bin"], exact=WB)
add("bwnaff_zero_weights", "binary_weight_affine", {"inp": T(3, 3)},
    {"n_outmaps": 2, "w_init": T(values=[[0.0, -0.0], [1.5, -2.5], [0.75, -0.25]]),
     "wb_init": T(3, 2), "b_init": T(2)}, keep="*", edge=True, exact=WB)
add("bwnaff_two_passes", "binary_weight_affine", {"inp": T(4, 5)}, {"n_outmaps": 3}, exact=WB,
    passes=[{"inputs": True, "set": {"W": T(scale=2.0)}}])

# --------------------------------------------- binary_weight_convolution
add("bwnconv_basic", "binary_weight_convolution", {"inp": IMG},
    {"outmaps": 4, "kernel": (3, 3)}, exact=WB)
add("bwnconv_all", "binary_weight_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (3, 2), "pad": (2, 1), "stride": (2, 1), "dilation": (2, 2)}, exact=WB)
add("bwnconv_1d_no_bias", "binary_weight_convolution", {"inp": T(2, 3, 9)},
    {"outmaps": 3, "kernel": (3,), "with_bias": False}, exact=WB)
add("bwnconv_base_axis2_fixed", "binary_weight_convolution", {"inp": T(2, 2, 3, 4, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "fix_parameters": True}, exact=WB)
add("bwnconv_array_init", "binary_weight_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (2, 2), "w_init": T(2, 3, 2, 2), "wb_init": T(2, 3, 2, 2),
     "b_init": T(2), "name": "bw"}, scope=["n"], keep="*", exact=WB)

# ------------------------------------------------------------ inq_affine
STEP = {"inputs": True, "set": {"W": Add(T(scale=0.05))}}
INQ = ["W", "I"]
add("inqaff_largest_abs", "inq_affine", {"inp": T(3, 6)},
    {"n_outmaps": 4, "inq_iterations": (1, 3, 4), "selection_algorithm": "largest_abs"},
    passes=[STEP] * 5, exact=["I"],
    notes="between passes every weight is moved, as a solver would; fixed ones must come back")
add("inqaff_bits3_odd", "inq_affine", {"inp": T(3, 5)},
    {"n_outmaps": 3, "num_bits": 3, "inq_iterations": (0, 2, 3), "selection_algorithm": "largest_abs"},
    passes=[STEP] * 4, exact=["I"], notes="15 weights: halves are rounded down")
add("inqaff_bits2", "inq_affine", {"inp": T(3, 5)},
    {"n_outmaps": 4, "num_bits": 2, "inq_iterations": (0,), "selection_algorithm": "largest_abs",
     "with_bias": False}, passes=[STEP], exact=INQ)
add("inqaff_never", "inq_affine", {"inp": T(3, 5)},
    {"n_outmaps": 4, "selection_algorithm": "largest_abs", "name": "q"}, scope=["net"],
    passes=[STEP], notes="no iteration ever fixes anything: a plain affine")
add("inqaff_prefixed_tuple", "inq_affine", {"inp": T(2, 3, 4)},
    {"n_outmaps": (2, 2), "base_axis": 2, "inq_iterations": (1,),
     "selection_algorithm": "largest_abs", "num_bits": 5,
     "i_init": T(values=[[[1, 0], [0, 1]], [[0, 0], [1, 1]], [[1, 1], [0, 0]], [[0, 1], [0, 1]]])},
    passes=[STEP], keep=["I"], exact=["I"],
    notes="weights whose indicator starts at one are quantised in the first pass")
add("inqaff_fixed_parameters", "inq_affine", {"inp": T(3, 5)},
    {"n_outmaps": 4, "inq_iterations": (0, 1), "selection_algorithm": "largest_abs",
     "fix_parameters": True}, passes=[STEP], exact=["I"],
    notes="W is quantised in place although it receives no gradient")
add("inqaff_random_seeded", "inq_affine", {"inp": T(3, 6)},
    {"n_outmaps": 5, "inq_iterations": (0, 1, 2), "selection_algorithm": "random", "seed": 7},
    passes=[STEP] * 2, exact=["I"], check="inq_random",
    notes="which weights are chosen depends on the random generator; see README")

# ------------------------------------------------------- inq_convolution
add("inqconv_largest_abs", "inq_convolution", {"inp": T(2, 2, 5, 5)},
    {"outmaps": 3, "kernel": (3, 3), "inq_iterations": (0, 2, 3),
     "selection_algorithm": "largest_abs"}, passes=[STEP] * 4, exact=["I"])
add("inqconv_all_bits3", "inq_convolution", {"inp": T(2, 2, 6, 5)},
    {"outmaps": 2, "kernel": (3, 2), "pad": (1, 1), "stride": (2, 1), "dilation": (1, 2),
     "num_bits": 3, "inq_iterations": (1, 2), "selection_algorithm": "largest_abs"},
    passes=[STEP] * 3, exact=["I"])
add("inqconv_1d_no_bias", "inq_convolution", {"inp": T(2, 3, 7)},
    {"outmaps": 2, "kernel": (3,), "inq_iterations": (0,), "selection_algorithm": "largest_abs",
     "with_bias": False}, exact=INQ)
add("inqconv_base_axis2_fixed", "inq_convolution", {"inp": T(2, 2, 2, 4, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "inq_iterations": (0, 1), "num_bits": 4,
     "selection_algorithm": "largest_abs", "fix_parameters": True, "name": "q"}, scope=["n"],
    passes=[STEP], exact=["I"])
add("inqconv_random_seeded", "inq_convolution", {"inp": T(2, 2, 5, 5)},
    {"outmaps": 3, "kernel": (2, 2), "inq_iterations": (0, 1), "selection_algorithm": "random",
     "seed": 3}, passes=[STEP], exact=["I"], check="inq_random")

# ------------------------------------------ fixed_point_quantized_affine
Q = ["W_q", "b_q"]
add("fpaff_defaults", "fixed_point_quantized_affine", {"inp": T(4, 6)}, {"n_outmaps": 5}, exact=Q)
add("fpaff_clip_signed", "fixed_point_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 3, "delta_w": 0.25, "n_b": 2, "delta_b": 0.5},
    params={"W": T(scale=1.0), "b": T(scale=1.0)}, exact=Q,
    notes="values beyond the range are clipped and get no gradient")
add("fpaff_unsigned", "fixed_point_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "sign_w": False, "n_w": 3, "delta_w": 0.125, "sign_b": False, "n_b": 2,
     "delta_b": 0.25}, exact=Q)
add("fpaff_coarse_ste", "fixed_point_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 2, "delta_w": 0.5, "ste_fine_grained_w": False, "n_b": 2,
     "delta_b": 0.25, "ste_fine_grained_b": False}, params={"W": T(scale=1.0)}, exact=Q)
add("fpaff_bias_only", "fixed_point_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "quantize_w": False}, exact=Q, notes="W_q is not registered")
add("fpaff_weight_only", "fixed_point_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "quantize_b": False, "delta_w": 0.1}, notes="b_q is not registered")
add("fpaff_no_bias_tuple", "fixed_point_quantized_affine", {"inp": T(2, 3, 4)},
    {"n_outmaps": (2, 2), "base_axis": 2, "with_bias": False}, exact=Q)
add("fpaff_fixed_named", "fixed_point_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "fix_parameters": True, "name": "q"}, scope=["net"], exact=Q)
add("fpaff_ties", "fixed_point_quantized_affine", {"inp": T(2, 4)},
    {"n_outmaps": 2, "n_w": 3, "delta_w": 0.5, "n_b": 3, "delta_b": 0.25,
     "w_init": T(values=[[0.25, -0.25], [0.75, -0.75], [1.5, -1.5], [1.75, 0.0]]),
     "b_init": T(values=[0.125, -0.375])}, keep="*", edge=True, exact=Q,
    notes="exact halves round away from zero; exactly the largest value still has gradient")

# ------------------------------------- fixed_point_quantized_convolution
add("fpconv_defaults", "fixed_point_quantized_convolution", {"inp": IMG},
    {"outmaps": 3, "kernel": (3, 3)}, exact=Q)
add("fpconv_all", "fixed_point_quantized_convolution", {"inp": T(2, 4, 6, 5)},
    {"outmaps": 4, "kernel": (3, 2), "pad": (1, 1), "stride": (2, 1), "dilation": (1, 2), "group": 2,
     "n_w": 4, "delta_w": 0.125, "n_b": 3, "delta_b": 0.25}, exact=Q)
add("fpconv_unsigned_coarse", "fixed_point_quantized_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (2, 2), "sign_w": False, "n_w": 2, "delta_w": 0.25,
     "ste_fine_grained_w": False, "sign_b": False}, exact=Q)
add("fpconv_partial_1d", "fixed_point_quantized_convolution", {"inp": T(2, 3, 8)},
    {"outmaps": 2, "kernel": (3,), "quantize_b": False}, exact=Q)
add("fpconv_fixed_base_axis2", "fixed_point_quantized_convolution", {"inp": T(2, 2, 3, 4, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "fix_parameters": True, "with_bias": False},
    exact=Q)

# ------------------------------------------------ pow2_quantized_affine
WIDE = {"W": T(dist="log2", lo=-6, hi=3), "b": T(dist="log2", lo=-4, hi=3)}
add("pow2aff_defaults", "pow2_quantized_affine", {"inp": T(4, 6)}, {"n_outmaps": 5}, params=WIDE,
    exact=Q, notes="magnitudes above 2**m are clipped and get no gradient")
add("pow2aff_small_n", "pow2_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 3, "m_w": 1, "n_b": 3, "m_b": 0}, params=WIDE, exact=Q,
    notes="magnitudes below the smallest power are lifted to it")
add("pow2aff_with_zero", "pow2_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 4, "m_w": 1, "with_zero_w": True, "n_b": 4, "m_b": 0,
     "with_zero_b": True}, params=WIDE, exact=Q)
add("pow2aff_unsigned", "pow2_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 2, "m_w": 1, "sign_w": False, "n_b": 2, "m_b": 1, "sign_b": False},
    params=WIDE, exact=Q)
add("pow2aff_unsigned_with_zero", "pow2_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 3, "m_w": 1, "sign_w": False, "with_zero_w": True, "n_b": 3, "m_b": 1,
     "sign_b": False, "with_zero_b": True}, params=WIDE, exact=Q)
add("pow2aff_coarse_ste", "pow2_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "n_w": 3, "m_w": 0, "ste_fine_grained_w": False, "n_b": 3, "m_b": 0,
     "ste_fine_grained_b": False}, params=WIDE, exact=Q)
add("pow2aff_partial_tuple", "pow2_quantized_affine", {"inp": T(2, 3, 4)},
    {"n_outmaps": (2, 2), "base_axis": 2, "quantize_b": False}, params=WIDE, exact=Q)
add("pow2aff_no_bias_fixed", "pow2_quantized_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "with_bias": False, "fix_parameters": True, "name": "q"}, scope=["net"],
    params=WIDE, exact=Q)
add("pow2aff_zero_weights", "pow2_quantized_affine", {"inp": T(2, 3)},
    {"n_outmaps": 2, "n_w": 3, "m_w": 1, "with_zero_w": False, "quantize_b": False,
     "w_init": T(values=[[0.0, -0.0], [1.0, -4.0], [2.0, -0.01]]), "b_init": T(2)}, keep="*",
    edge=True, exact=Q, notes="without a zero level a zero weight becomes the smallest power")

# ------------------------------------------- pow2_quantized_convolution
add("pow2conv_defaults", "pow2_quantized_convolution", {"inp": IMG},
    {"outmaps": 3, "kernel": (3, 3)}, params=WIDE, exact=Q)
add("pow2conv_all", "pow2_quantized_convolution", {"inp": T(2, 4, 6, 5)},
    {"outmaps": 4, "kernel": (3, 2), "pad": (1, 1), "stride": (2, 1), "dilation": (1, 2), "group": 2,
     "n_w": 4, "m_w": 1, "with_zero_w": True, "n_b": 3, "m_b": 1}, params=WIDE, exact=Q)
add("pow2conv_unsigned_coarse", "pow2_quantized_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (2, 2), "sign_w": False, "n_w": 2, "m_w": 0,
     "ste_fine_grained_w": False, "sign_b": False, "with_zero_b": True, "n_b": 3, "m_b": 1},
    params=WIDE, exact=Q)
add("pow2conv_partial_1d", "pow2_quantized_convolution", {"inp": T(2, 3, 8)},
    {"outmaps": 2, "kernel": (3,), "quantize_w": False}, params=WIDE, exact=Q)
add("pow2conv_fixed_base_axis2", "pow2_quantized_convolution", {"inp": T(2, 2, 3, 4, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "fix_parameters": True, "with_bias": False},
    params=WIDE, exact=Q)

# --------------------------------------------------------- pruned_affine
add("prunaff_defaults", "pruned_affine", {"inp": T(4, 6)}, {"n_outmaps": 5}, exact=Q)
add("prunaff_rate_half", "pruned_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "rate_w": 0.5, "rate_b": 0.25}, exact=Q)
add("prunaff_rate_zero", "pruned_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "rate_w": 0.0, "rate_b": 0.0}, exact=Q)
add("prunaff_rate_one", "pruned_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "rate_w": 1.0, "rate_b": 1.0}, exact=Q, notes="everything is pruned")
add("prunaff_index_rounding", "pruned_affine", {"inp": T(2, 101)},
    {"n_outmaps": 1, "rate_w": 0.7, "prune_b": False}, exact=Q,
    notes="(101 - 1) * 0.7 in float32 is exactly 70, in float64 from the float32 rate it is below")
add("prunaff_index_rounding_double", "pruned_affine", {"inp": T(2, 101)},
    {"n_outmaps": 1, "rate_w": 0.29, "prune_b": False}, exact=Q,
    notes="(101 - 1) * 0.29 rounds to 29 in float32 but truncates to 28 in float64")
add("prunaff_ties", "pruned_affine", {"inp": T(2, 4)},
    {"n_outmaps": 2, "rate_w": 0.5, "prune_b": False,
     "w_init": T(values=[[1, -1], [1, 2], [-2, 2], [0, 3]]), "b_init": T(2)}, keep="*", edge=True,
    exact=Q, notes="values equal to the threshold survive")
add("prunaff_bias_only", "pruned_affine", {"inp": T(4, 6)},
    {"n_outmaps": 5, "prune_w": False, "rate_b": 0.5}, exact=Q)
add("prunaff_no_bias_tuple", "pruned_affine", {"inp": T(2, 3, 4)},
    {"n_outmaps": (2, 3), "base_axis": 2, "rate_w": 0.6, "with_bias": False}, exact=Q)
add("prunaff_fixed_named", "pruned_affine", {"inp": T(4, 6)},
    {"n_outmaps": 3, "rate_w": 0.4, "rate_b": 0.4, "fix_parameters": True, "name": "p"},
    scope=["net"], exact=Q)

# ---------------------------------------------------- pruned_convolution
add("prunconv_defaults", "pruned_convolution", {"inp": IMG}, {"outmaps": 3, "kernel": (3, 3)},
    exact=Q)
add("prunconv_all", "pruned_convolution", {"inp": T(2, 4, 6, 5)},
    {"outmaps": 4, "kernel": (3, 2), "pad": (1, 1), "stride": (2, 1), "dilation": (1, 2), "group": 2,
     "rate_w": 0.5, "rate_b": 0.5}, exact=Q)
add("prunconv_1d_weight_only", "pruned_convolution", {"inp": T(2, 3, 8)},
    {"outmaps": 2, "kernel": (3,), "rate_w": 0.3, "prune_b": False}, exact=Q)
add("prunconv_rates_extreme", "pruned_convolution", {"inp": IMG},
    {"outmaps": 2, "kernel": (2, 2), "rate_w": 0.0, "rate_b": 1.0}, exact=Q)
add("prunconv_fixed_base_axis2", "pruned_convolution", {"inp": T(2, 2, 3, 4, 4)},
    {"outmaps": 2, "kernel": (2, 2), "base_axis": 2, "rate_w": 0.8, "fix_parameters": True,
     "with_bias": False}, exact=Q)

# ------------------------------------------- lstm (named lstm_cell today)
add("lstm_basic", "lstm_cell", {"x": T(3, 4), "h": T(3, 5), "c": T(3, 5)}, {"state_size": 5})
add("lstm_fixed", "lstm_cell", {"x": T(3, 4), "h": T(3, 5), "c": T(3, 5)},
    {"state_size": 5, "fix_parameters": True})
add("lstm_named_nested", "lstm_cell", {"x": T(2, 3), "h": T(2, 4), "c": T(2, 4)},
    {"state_size": 4, "name": "cell"}, scope=["rnn", "layer0"])
add("lstm_array_init", "lstm_cell", {"x": T(2, 3), "h": T(2, 4), "c": T(2, 4)},
    {"state_size": 4, "w_init": T(7, 4, 4), "b_init": T(4, 4)}, keep="*")
add("lstm_default_init", "lstm_cell", {"x": T(2, 3), "h": T(2, 4), "c": T(2, 4)},
    {"state_size": 4}, keep="*")
add("lstm_saturated", "lstm_cell", {"x": T(2, 3, scale=4.0), "h": T(2, 4), "c": T(2, 4, scale=3.0)},
    {"state_size": 4}, params={"W": T(scale=1.5), "b": T(scale=2.0)})

add("lstmcell_three_steps", "LSTMCell", {"x0": T(2, 3), "x1": T(2, 3), "x2": T(2, 3)},
    {"batch_size": 2, "state_size": 4})
add("lstmcell_given_state", "LSTMCell",
    {"x0": T(3, 2), "x1": T(3, 2), "x2": T(3, 2), "x3": T(3, 2), "h": T(3, 5), "c": T(3, 5)},
    {"batch_size": 3, "state_size": 5, "name": "enc"}, scope=["seq"])
add("lstmcell_fixed", "LSTMCell", {"x0": T(2, 3), "x1": T(2, 3)},
    {"batch_size": 2, "state_size": 3, "fix_parameters": True})
add("lstmcell_init_args", "LSTMCell", {"x0": T(2, 3), "x1": T(2, 3)},
    {"batch_size": 2, "state_size": 4, "w_init": T(7, 4, 4), "b_init": Init("constant", value=0.5)},
    keep="*")

# =======================================================================
# functions that are not in the documentation of NNabla 1.0
# =======================================================================
beyond("layernorm_basic", "layer_normalization", {"inp": T(4, 3, 5)})
beyond("layernorm_two_batch_axes", "layer_normalization", {"inp": T(3, 2, 6)},
       {"batch_axis": (0, 1), "eps": 0.01, "output_stat": True})
beyond("layernorm_no_scale", "layer_normalization", {"inp": T(4, 6)}, {"no_scale": True})
beyond("groupnorm_basic", "group_normalization", {"inp": T(2, 6, 4)}, {"num_groups": 3})
beyond("groupnorm_output_stat", "group_normalization", {"inp": T(2, 4, 3, 3)},
       {"num_groups": 2, "eps": 0.05, "output_stat": True})
beyond("instancenorm_basic", "instance_normalization", {"inp": T(2, 3, 4, 4)})
beyond("instancenorm_no_bias", "instance_normalization", {"inp": T(2, 3, 5)},
       {"no_bias": True, "eps": 0.02})
beyond("bn_no_scale", "batch_normalization", {"inp": T(4, 3, 2)}, {"no_scale": True})
beyond("bn_no_bias", "batch_normalization", {"inp": T(4, 3, 2)}, {"no_bias": True})
beyond("fusedbn_residual", "fused_batch_normalization", {"inp": T(3, 4, 2, 2), "z": T(3, 4, 2, 2)})
beyond("fusedbn_plain_test", "fused_batch_normalization", {"inp": T(3, 4, 2, 2)},
       {"batch_stat": False, "eps": 0.01})
beyond("weightnorm_function", "weight_normalization", {"w": T(4, 3, 2)})
beyond("weightnorm_dim1", "weight_normalization", {"w": T(4, 3)}, {"dim": 1, "eps": 1e-3},
       keep=["g"], notes="g starts as the norms of w, so the output equals w")
beyond("weightnorm_affine", "affine", {"inp": T(3, 5)},
       {"n_outmaps": 4, "apply_w": Apply("weight_normalization", dim=1)})
beyond("spectralnorm_two_passes", "spectral_norm", {"w": T(4, 3, 2)}, {"itr": 2},
       passes=[{}], notes="u is updated in forward")
beyond("spectralnorm_last_dim", "spectral_norm", {"w": T(5, 4)}, {"dim": 1})
beyond("spectralnorm_conv", "convolution", {"inp": T(2, 3, 5, 5)},
       {"outmaps": 4, "kernel": (3, 3), "apply_w": Apply("spectral_norm", dim=0)})
beyond("affine_negative_base_axis", "affine", {"inp": T(2, 3, 5)}, {"n_outmaps": 4, "base_axis": -1})
beyond("bicaff_zero_to_minus", "binary_connect_affine", {"inp": T(3, 3)},
       {"n_outmaps": 2, "quantize_zero_to": -1.0,
        "w_init": T(values=[[0.0, 1.0], [-2.0, 0.0], [0.5, -0.5]])}, keep=["W"], edge=True,
       exact=["Wb"])
beyond("prelu_slope_init", "prelu", {"inp": T(3, 4)},
       {"shared": False, "slope_init": T(4)}, keep="*")
beyond("deconv_output_padding", "deconvolution", {"inp": T(2, 3, 4, 4)},
       {"outmaps": 2, "kernel": (3, 3), "stride": (2, 3), "output_padding": (1, 2)})

RNN = {"x": T(4, 2, 3), "h": T(1, 1, 2, 4)}
RNN2 = {"x": T(4, 2, 3), "h": T(2, 2, 2, 3)}
beyond("rnn_tanh", "rnn", RNN)
beyond("rnn_relu_two_layers_bidirectional", "rnn", RNN2,
       {"nonlinearity": "relu", "bidirectional": True})
beyond("lstm_nstep", "lstm", dict(RNN, c=T(1, 1, 2, 4)))
beyond("lstm_nstep_two_layers_bidirectional", "lstm", dict(RNN2, c=T(2, 2, 2, 3)),
       {"bidirectional": True})
beyond("gru_nstep", "gru", RNN)
beyond("gru_nstep_two_layers", "gru", {"x": T(3, 2, 3), "h": T(2, 1, 2, 4)}, {"with_bias": True})

beyond("mha_cross", "multi_head_attention",
       {"query": T(3, 2, 6), "key": T(4, 2, 6), "value": T(4, 2, 6)}, {"num_heads": 2})
beyond("mha_attn_bias", "multi_head_attention",
       {"query": T(3, 2, 6), "key": T(4, 2, 6), "value": T(4, 2, 6)},
       {"num_heads": 3, "add_attn_bias": True, "name": "att"}, scope=["t"])
beyond("transformer_encode_basic", "transformer_encode", {"src": T(4, 2, 6)},
       {"embed_dim": 6, "num_heads": 2, "dim_feedforward": 5, "dropout": 0.0})
beyond("transformer_encode_fixed", "transformer_encode", {"src": T(3, 2, 4)},
       {"embed_dim": 4, "num_heads": 2, "dim_feedforward": 6, "dropout": 0.0,
        "fix_parameters": True, "name": "enc0"},
       notes="fix_parameters is not handed down: every parameter still receives its gradient")
beyond("deformconv_basic", "deformable_convolution",
       {"inp": T(2, 2, 5, 5), "offset": T(2, 18, 5, 5, scale=0.6)},
       {"outmaps": 3, "kernel": (3, 3), "pad": (1, 1)})
beyond("deformconv_mask_groups", "deformable_convolution",
       {"inp": T(2, 4, 4, 5), "offset": T(2, 36, 4, 5, scale=0.6),
        "mask": T(2, 18, 4, 5, dist="uniform", lo=0.1, hi=0.9)},
       {"outmaps": 4, "kernel": (3, 3), "pad": (1, 1), "group": 2, "deformable_group": 2})
beyond("minmaxaff_learned_range", "min_max_quantized_affine", {"inp": T(4, 6)}, {"n_outmaps": 5},
       params={"W": T(scale=1.5)})
beyond("minmaxaff_measured_range", "min_max_quantized_affine", {"inp": T(4, 6)},
       {"n_outmaps": 5, "w_min_max": True, "b_min_max": True, "ql_max_w": 15, "ql_max_b": 7})
beyond("minmaxconv_coarse", "min_max_quantized_convolution", {"inp": T(2, 4, 5, 5)},
       {"outmaps": 4, "kernel": (3, 3), "group": 2, "ql_max_w": 31, "ste_fine_grained_w": False,
        "quantize_b": False}, params={"W": T(scale=1.5)})

# =======================================================================
# initializers
# =======================================================================
INITIALIZERS = {
    "triples": [(i, o, k) for i in (1, 3, 16, 100, 784) for o in (1, 10, 64, 512)
                for k in (None, (1, 1), (3, 3), (5,), (3, 5), (2, 3, 4))],
    "samples": [
        {"kind": "constant", "shape": [2, 3]},
        {"kind": "constant", "value": 0.1, "shape": [4]},
        {"kind": "normal", "shape": [4, 5], "seed": 1},
        {"kind": "normal", "sigma": 5e-5, "shape": [300], "seed": 2},
        {"kind": "uniform", "shape": [4, 5], "seed": 3},
        {"kind": "uniform", "lim": [-0.5, 0.5], "shape": [300], "seed": 4},
        {"kind": "uniform", "lim": [0.25, 2.0], "shape": [2, 3, 4], "seed": 5},
    ],
}

_GLOROT = "uniform(calc_uniform_lim_glorot({}))"
_AFF = {"W": _GLOROT.format("prod(inp.shape[base_axis:]), prod(n_outmaps)"), "b": "constant 0"}
_CONV = {"W": _GLOROT.format("inp.shape[base_axis], outmaps, kernel") + "; group is not considered",
         "b": "constant 0"}
_BN = {"beta": "constant 0", "gamma": "constant 1", "mean": "constant 0", "var": "constant 1"}


def _default(function, inputs, args=None, law=None):
    return {"function": function, "inputs": inputs, "args": args or {}, "law": law or {}}


def _qlaw(base):
    return dict(base, W_q="same initializer as W", b_q="same initializer as b")


DEFAULT_INITIALIZERS = [
    _default("affine", {"inp": [4, 3, 5]}, {"n_outmaps": 7}, _AFF),
    _default("affine", {"inp": [4, 3, 5]}, {"n_outmaps": [2, 3], "base_axis": 2}, _AFF),
    _default("convolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 5]}, _CONV),
    _default("convolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 3], "group": 2}, _CONV),
    _default("depthwise_convolution", {"inp": [2, 6, 8, 8]}, {"kernel": [3, 3], "multiplier": 2},
             {"W": _GLOROT.format("C * multiplier, C, kernel") + " with C = inp.shape[base_axis]",
              "b": "constant 0"}),
    _default("deconvolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 3]},
             {"W": _GLOROT.format("outmaps, inp.shape[base_axis], kernel") + "; group is not considered",
              "b": "constant 0"}),
    _default("depthwise_deconvolution", {"inp": [2, 6, 8, 8]}, {"kernel": [3, 3], "divisor": 2},
             {"W": _GLOROT.format("C, C, kernel") + " with C = inp.shape[base_axis]",
              "b": "constant 0"}),
    _default("batch_normalization", {"inp": [2, 6, 8, 8]}, {}, _BN),
    _default("mean_subtraction", {"inp": [2, 6, 8]}, {}, {"mean": "constant 0", "t": "constant 0"}),
    _default("embed", {"inp": [3]}, {"n_inputs": 10, "n_features": 4},
             {"W": "uniform(-sqrt(3), sqrt(3))"}),
    _default("prelu", {"inp": [2, 6, 8]}, {}, {"slope": "constant 0.25"}),
    _default("prelu", {"inp": [2, 6, 8]}, {"shared": False}, {"slope": "constant 0.25"}),
    _default("svd_affine", {"inp": [4, 6]}, {"n_outmaps": 5, "r": 2},
             {"U": "left singular vectors times singular values, first r columns",
              "V": "right singular vectors, first r rows", "b": "constant 0"}),
    _default("svd_convolution", {"inp": [2, 3, 5, 5]}, {"outmaps": 4, "kernel": [3, 3], "r": 2},
             {"U": "per input map: left singular vectors times singular values",
              "V": "per input map: right singular vectors", "b": "constant 0"}),
    _default("cpd3_convolution", {"inp": [2, 3, 5, 5]},
             {"outmaps": 4, "kernel": (3, 3), "r": 2},
             {"I": "CP factor", "O": "CP factor times lambda", "K": "CP factor", "b": "constant 0"}),
    _default("binary_connect_affine", {"inp": [4, 6]}, {"n_outmaps": 5},
             dict(_AFF, Wb="same law as W, drawn separately")),
    _default("binary_connect_convolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 3]},
             dict(_CONV, Wb="same law as W, drawn separately")),
    _default("binary_weight_affine", {"inp": [4, 6]}, {"n_outmaps": 5},
             dict(_AFF, Wb="same law as W, drawn separately", alpha="constant 0")),
    _default("binary_weight_convolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 3]},
             dict(_CONV, Wb="same law as W, drawn separately", alpha="constant 0")),
    _default("inq_affine", {"inp": [4, 6]}, {"n_outmaps": 5}, dict(_AFF, I="constant 0")),
    _default("inq_convolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 3]},
             dict(_CONV, I="constant 0")),
    _default("fixed_point_quantized_affine", {"inp": [4, 6]}, {"n_outmaps": 5}, _qlaw(_AFF)),
    _default("fixed_point_quantized_convolution", {"inp": [2, 6, 8, 8]},
             {"outmaps": 4, "kernel": [3, 3]}, _qlaw(_CONV)),
    _default("pow2_quantized_affine", {"inp": [4, 6]}, {"n_outmaps": 5}, _qlaw(_AFF)),
    _default("pow2_quantized_convolution", {"inp": [2, 6, 8, 8]},
             {"outmaps": 4, "kernel": [3, 3]}, _qlaw(_CONV)),
    _default("pruned_affine", {"inp": [4, 6]}, {"n_outmaps": 5}, _qlaw(_AFF)),
    _default("pruned_convolution", {"inp": [2, 6, 8, 8]}, {"outmaps": 4, "kernel": [3, 3]},
             _qlaw(_CONV)),
    _default("lstm_cell", {"x": [2, 3], "h": [2, 5], "c": [2, 5]}, {"state_size": 5},
             {"W": _GLOROT.format("input_size + state_size, 4 * state_size"), "b": "constant 0"}),
    _default("LSTMCell", {"x": [2, 3]}, {"batch_size": 2, "state_size": 5},
             {"W": _GLOROT.format("input_size + state_size, 4 * state_size"), "b": "constant 0"}),
    _default("layer_normalization", {"inp": [2, 3, 4]}, {}, _BN),
    _default("group_normalization", {"inp": [2, 4, 4]}, {"num_groups": 2}, _BN),
    _default("instance_normalization", {"inp": [2, 3, 4]}, {}, _BN),
    _default("spectral_norm", {"w": [4, 3]}, {}, {"u": "normal, sigma 1"}),
    _default("rnn", {"x": [4, 2, 3], "h": [2, 1, 2, 5]}, {},
             {"weight_l0": "input block: " + _GLOROT.format("I, H") + "; hidden block: "
                           + _GLOROT.format("H, H"),
              "weight": "input block: " + _GLOROT.format("D*H, H") + "; hidden block: "
                        + _GLOROT.format("H, H"), "bias": "constant 0"}),
    _default("multi_head_attention", {"query": [3, 2, 6], "key": [4, 2, 6], "value": [4, 2, 6]},
             {"num_heads": 2, "add_attn_bias": True}),
    _default("min_max_quantized_affine", {"inp": [4, 6]}, {"n_outmaps": 5}, _qlaw(_AFF)),
]

# =======================================================================
# parameter management API
# =======================================================================


def _s(op, scope=(), **args):
    return {"op": op, "scope": list(scope), "args": args}


_C = "get_parameter_or_create"
_aff = {"function": "affine", "inputs": {"inp": [2, 3]}, "args": {"n_outmaps": 4}}
PARAMETER_API = [
    {"name": "nested scopes and slashes", "steps": [
        _s("call", ["network1", "conv1"], **_aff),
        _s("call", ["network1/conv2"], **_aff),
        _s("get_parameters"),
        _s("get_parameters", ["network1"]),
        _s("get_parameters", ["network1/conv2"]),
        _s("get_parameters", ["network1"], path="prefix"),
        _s("get_parameters", ["nothing/here"]),
    ]},
    {"name": "name argument", "steps": [
        _s("call", [], function="affine", inputs={"inp": [2, 3]}, args={"n_outmaps": 4, "name": "fc"}),
        _s("call", ["top"], function="affine", inputs={"inp": [2, 3]},
           args={"n_outmaps": 4, "name": "a/b"}),
        _s("get_parameters"),
    ]},
    {"name": "grad_only hides parameters without gradient", "steps": [
        _s("call", [], function="batch_normalization", inputs={"inp": [2, 3]}),
        _s("get_parameters"),
        _s("get_parameters", [], grad_only=False),
    ]},
    {"name": "second call reuses, other shape fails", "steps": [
        _s("call", ["s"], **_aff),
        _s("call", ["s"], **_aff),
        _s("call", ["s"], function="affine", inputs={"inp": [2, 5]}, args={"n_outmaps": 4}),
        _s("get_parameters"),
    ]},
    {"name": "get_parameter_or_create: creation", "steps": [
        _s(_C, [], name="p0", shape=[2, 2]),
        _s(_C, [], name="p1", shape=[3], initializer={"constant": 1.5}),
        _s(_C, [], name="p2", initializer={"array": [1.0, 2.0, 3.0]}),
        _s(_C, [], name="p3", shape=[2], initializer={"array": [1.0, 2.0, 3.0]}),
        _s(_C, [], name="deep/er/p4", shape=[1], initializer={"constant": -1.0}),
        _s(_C, [], name="p5", shape=[], initializer={"constant": 0.5}),
        _s("get_parameter", [], name="deep/er/p4"),
        _s("get_parameter", ["deep"], name="er/p4"),
        _s("get_parameter", [], name="absent"),
        _s("get_parameters", [], grad_only=False),
    ], "notes": "without initializer the values are zeros; p3 fails because the array does not fit"},
    {"name": "get_parameter_or_create: need_grad is overwritten, values kept", "steps": [
        _s(_C, [], name="p", shape=[2], initializer={"array": [1.0, 2.0]}, need_grad=True),
        _s(_C, [], name="p", shape=[2], initializer={"array": [7.0, 7.0]}, need_grad=False),
        _s("get_parameters"),
        _s("get_parameters", [], grad_only=False),
        _s(_C, [], name="p", shape=[2], need_grad=True),
        _s("get_parameters"),
    ]},
    {"name": "get_parameter_or_create: as_need_grad leaves the registered flag", "steps": [
        _s(_C, [], name="p", shape=[2], initializer={"array": [1.0, 2.0]}, need_grad=True,
           as_need_grad=False),
        _s("get_parameters"),
        _s(_C, [], name="q", shape=[2], initializer={"array": [1.0, 2.0]}, need_grad=False,
           as_need_grad=True),
        _s("get_parameters"),
        _s("get_parameters", [], grad_only=False),
    ]},
    {"name": "order is depth first over the scope tree", "steps": [
        _s(_C, ["a"], name="x", shape=[1]),
        _s(_C, ["b"], name="x", shape=[1]),
        _s(_C, ["a"], name="w", shape=[1]),
        _s(_C, [], name="root", shape=[1]),
        _s(_C, ["a", "sub"], name="x", shape=[1]),
        _s(_C, ["a"], name="last", shape=[1]),
        _s("get_parameters"),
    ]},
    {"name": "set, pop, clear", "steps": [
        _s("set_parameter", ["m"], name="v", values=[1.0, 2.0]),
        _s("set_parameter", ["m"], name="n/v", values=[3.0], need_grad=False),
        _s("get_parameters", [], grad_only=False),
        _s("pop_parameter", ["m"], name="v"),
        _s("pop_parameter", ["m"], name="v"),
        _s("get_parameters", [], grad_only=False),
        _s("set_parameter", ["k"], name="v", values=[4.0]),
        _s("clear_parameters", ["m"]),
        _s("get_parameters", [], grad_only=False),
        _s("clear_parameters"),
        _s("get_parameters", [], grad_only=False),
    ], "notes": "clear_parameters only empties the current scope"},
]

# =======================================================================
# calls that are refused
# =======================================================================


def _e(why, function, inputs, **args):
    return {"why": why, "function": function, "inputs": inputs, "args": args}


_X = {"inp": [2, 4]}
_I = {"inp": [2, 4, 5, 5]}
ERRORS = [
    _e("group does not divide outmaps", "convolution", _I, outmaps=3, kernel=(3, 3), group=2),
    _e("kernel larger than the padded input", "convolution", {"inp": [2, 4, 2, 2]}, outmaps=3,
       kernel=(3, 3)),
    _e("pad has the wrong length", "convolution", _I, outmaps=3, kernel=(3, 3), pad=(1,)),
    _e("w_init has the wrong shape", "affine", _X, n_outmaps=3, w_init={"zeros": [3, 4]}),
    _e("three spatial dimensions", "depthwise_convolution", {"inp": [2, 4, 5, 5, 5]},
       kernel=(3, 3, 3)),
    _e("three spatial dimensions", "depthwise_deconvolution", {"inp": [2, 4, 5, 5, 5]},
       kernel=(3, 3, 3)),
    _e("deconvolution output would be empty", "deconvolution", {"inp": [2, 4, 1, 1]}, outmaps=2,
       kernel=(2, 2), pad=(1, 1)),
    _e("output_stat without batch_stat", "batch_normalization", _I, batch_stat=False,
       output_stat=True),
    _e("rank zero", "svd_affine", _X, n_outmaps=3, r=0),
    _e("rank above min(inmaps, outmaps)", "svd_affine", _X, n_outmaps=3, r=5),
    _e("rank zero", "svd_convolution", _I, outmaps=3, kernel=(2, 2), r=0),
    _e("rank above min(prod(kernel), outmaps)", "svd_convolution", _I, outmaps=3, kernel=(2, 2), r=4),
    _e("rank zero", "cpd3_convolution", _I, outmaps=3, kernel=(2, 2), r=0),
    _e("grouped weights are not supported", "binary_connect_convolution", _I, outmaps=4,
       kernel=(3, 3), group=2),
    _e("grouped weights are not supported", "binary_weight_convolution", _I, outmaps=4,
       kernel=(3, 3), group=2),
    _e("grouped weights are not supported", "inq_convolution", _I, outmaps=4, kernel=(3, 3), group=2),
    _e("unknown selection algorithm", "inq_affine", _X, n_outmaps=3, selection_algorithm="smallest"),
    _e("no bit left after the sign", "fixed_point_quantized_affine", _X, n_outmaps=3, n_w=1),
    _e("step size not positive", "fixed_point_quantized_affine", _X, n_outmaps=3, delta_w=0.0),
    _e("no bit left after the sign", "pow2_quantized_affine", _X, n_outmaps=3, n_w=1),
    _e("no bit left after sign and zero", "pow2_quantized_affine", _X, n_outmaps=3, n_w=2,
       with_zero_w=True),
    _e("rate above one", "pruned_affine", _X, n_outmaps=3, rate_w=1.5),
    _e("rate below zero", "pruned_affine", _X, n_outmaps=3, rate_b=-0.1),
    _e("state_size disagrees with c", "lstm_cell", {"x": [2, 3], "h": [2, 4], "c": [2, 4]},
       state_size=5),
]

# =======================================================================
# checkpoints
# =======================================================================
CHECKPOINTS = {
    "seed": 4242,
    "model": {"root": "net", "input": [2, 3, 8, 8], "maps": [4, 6], "classes": 5,
              "frozen": ["net/features/stage2/conv/W", "net/features/stage1/prelu/slope"]},
    "order": [("zeta/w", [2], True), ("alpha/w", [3], True), ("zeta/b", [1], False),
              ("m", [2, 2], True), ("alpha/inner/deep/w", [1, 2], True), ("zeta/a/w", [2], True),
              ("Beta", [1], False)],
    "state": {"input": [4, 6], "outmaps": 3, "passes": 3},
    "subset": ["net/classifier/affine/b", "net/features/stage1/bn/mean",
               "net/features/stage1/conv1/conv/W"],
    "rename": {"net/features/stage1/bn/mean": "other/place/mean"},
    "large": [("wide/W", [500, 256]), ("wide/b", [256]), ("tall/W", [256, 300]), ("tall/b", [300])],
    "many": {"scope": "bag/of", "name": "p{:03d}", "count": 300},
}
