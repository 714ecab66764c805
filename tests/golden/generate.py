#!/usr/bin/env python3
"""Golden fixtures for NNabla's parametric functions, made by NNabla itself.

    python generate.py [--cases cases.py] [--out DIR] [--only SUBSTRING]

Reads a case table (see golden_dsl.py for its vocabulary), runs every case with
the installed `nnabla` on the CPU and writes, below DIR:

    manifest.json, <function>/<case>.safetensors     functions of the documentation of NNabla 1.0
    beyond/manifest.json, beyond/...                 functions that came later
    initializers.json, initializer_samples.safetensors
    default_initializers.json
    parameter_api.json
    errors.json
    checkpoints/...

The format is described in README.md.  Every random number comes from a
numpy RandomState seeded with the case's name, so two runs give identical bytes.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import sys
import zlib
from collections import OrderedDict

for _v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_v] = "1"

import numpy as np  # noqa: E402
import nnabla as nn  # noqa: E402
import nnabla.functions as F  # noqa: E402
import nnabla.initializer as I  # noqa: E402
import nnabla.parametric_functions as PF  # noqa: E402
import nnabla.random as nnrandom  # noqa: E402
from nnabla.logger import logger  # noqa: E402
import safetensors.numpy  # noqa: E402

import golden_dsl as dsl  # noqa: E402

logger.setLevel("ERROR")
SENTINEL = 7.25

# How a parameter is filled before the first forward pass, by the last part of
# its path.  `None` leaves what the function itself registered.
FILL = {
    "W": dsl.T(scale=0.5), "b": dsl.T(scale=0.5),
    "beta": dsl.T(scale=0.5), "gamma": dsl.T(dist="unit", lo=0.5, hi=1.5),
    "mean": dsl.T(scale=0.5), "var": dsl.T(dist="unit", lo=0.5, hi=2.0),
    "slope": dsl.T(dist="away", scale=0.5, lo=0.05),
    "g": dsl.T(dist="unit", lo=0.5, hi=2.0),
    "u": dsl.T(),
    "U": None, "V": None, "O": None, "K": None, "I": None, "t": None,
    "ql_min": None, "ql_max": None, "qr_min": None, "qr_max": None,
}
FILL_OTHER = dsl.T(scale=0.4)
# Parameters that nnabla keeps as integers once the function has run.
INT_LEAVES = {"inq_affine": {"I"}, "inq_convolution": {"I"}, "mean_subtraction": {"t"}}


def save_file(tensors, path):
    safetensors.numpy.save_file(tensors, path)
    os.chmod(path, 0o644)


# --------------------------------------------------------------------------
# drawing tensors
# --------------------------------------------------------------------------
def draw(rng, spec, shape=None):
    shape = spec.shape if shape is None else tuple(shape)
    if spec.dist == "values":
        return np.asarray(spec.values, dtype=spec.dtype).reshape(shape if shape is not None
                                                                 else np.shape(spec.values))
    if spec.dist == "int":
        return rng.randint(int(spec.lo), int(spec.hi), size=shape).astype(np.int32)
    if spec.dist == "normal":
        a = rng.randn(*shape) * spec.scale
    elif spec.dist in ("uniform", "unit"):
        a = rng.uniform(spec.lo, spec.hi, size=shape)
    elif spec.dist == "away":
        a = rng.randn(*shape) * spec.scale
        a = np.where(a < 0, a - spec.lo, a + spec.lo)
    elif spec.dist == "log2":
        sign = np.where(rng.uniform(size=shape) < 0.5, -1.0, 1.0)
        a = sign * 2.0 ** rng.uniform(spec.lo, spec.hi, size=shape)
    elif spec.dist == "lowrank":
        o, i, kern = shape[0], shape[1], int(np.prod(shape[2:]))
        f = [rng.uniform(0.2, 1.0, size=(n, spec.rank)) * np.where(
            rng.uniform(size=(n, spec.rank)) < 0.5, -1, 1) for n in (o, i, kern)]
        a = np.einsum("or,ir,kr->oik", *f).reshape(shape) * spec.scale
    else:
        raise ValueError(spec.dist)
    return np.asarray(a, dtype=np.float32)


class Source:
    """Hands out the tensors of one case, optionally with relative noise."""

    def __init__(self, case_id, seed, noise_seed=None):
        self.rng = np.random.RandomState((zlib.crc32(case_id.encode()) ^ seed) & 0xFFFFFFFF)
        self.noise = None if noise_seed is None else np.random.RandomState(noise_seed)

    def __call__(self, spec, shape=None):
        a = draw(self.rng, spec, shape)
        if self.noise is not None and a.dtype == np.float32 and spec.dist != "values":
            a = (a * (1 + 5e-7 * self.noise.uniform(-1, 1, size=a.shape))).astype(np.float32)
        return a


# --------------------------------------------------------------------------
# running a case
# --------------------------------------------------------------------------
def resolve(value, src, tensors, key, as_json):
    """Turns an argument of the case table into what nnabla takes, and records
    how it is written in the manifest."""
    if isinstance(value, dsl.T):
        arr = src(value)
        tensors[key] = arr
        as_json.append({"tensor": key})
        return arr
    if isinstance(value, dsl.Init):
        cls = {"constant": I.ConstantInitializer}[value.kind]
        as_json.append(dict(initializer=value.kind, **value.kw))
        return cls(**value.kw)
    if isinstance(value, dsl.Apply):
        as_json.append(dict(apply=value.function, **value.kw))
        return lambda w: getattr(PF, value.function)(w, **value.kw)
    if isinstance(value, dict):
        out, js = {}, {}
        for k, v in value.items():
            sub = []
            out[k] = resolve(v, src, tensors, key + "." + k, sub)
            js[k] = sub[0]
        as_json.append(js)
        return out
    as_json.append(list(value) if isinstance(value, tuple) else value)
    return value


def resolve_args(args, src, tensors, prefix="arg"):
    out, js = {}, {}
    for k, v in args.items():
        sub = []
        out[k] = resolve(v, src, tensors, "{}.{}".format(prefix, k), sub)
        js[k] = sub[0]
    return out, js


@contextlib.contextmanager
def scopes(names):
    with contextlib.ExitStack() as st:
        for n in names:
            st.enter_context(nn.parameter_scope(n))
        yield


def call_function(case, variables, args):
    """Runs the parametric function(s) and returns the list of outputs."""
    if case["function"] == "LSTMCell":
        a = dict(args)
        call_kw = {k: a.pop(k) for k in ("w_init", "b_init", "fix_parameters") if k in a}
        cell = PF.LSTMCell(a["batch_size"], a["state_size"], h=variables.get("h"),
                           c=variables.get("c"), name=a.get("name"))
        outs = [cell(v, **call_kw) for k, v in variables.items() if k.startswith("x")]
        return outs + [cell.c]
    fn = getattr(PF, case["function"])
    outs = []
    for call in case["calls"] or [{"inputs": {k: k for k in variables}}]:
        kw = dict(args)
        kw.update(call.get("args", {}))
        kw.update({arg: variables[key] for arg, key in call["inputs"].items()})
        y = fn(**kw)
        outs.extend(y if isinstance(y, (tuple, list)) else [y])
    return outs


def leaf(path):
    return path.rsplit("/", 1)[-1]


def snapshot(params, ints):
    out = OrderedDict()
    for k, v in params.items():
        a = np.array(v.d)
        out[k] = a.astype(np.int32) if leaf(k) in ints else a.astype(np.float32)
    return out


def lookup(table, path):
    return table[path] if path in table else table.get(leaf(path), "missing")


def is_grad_leaf(root, param):
    """Does the graph below `root` hold `param` as a leaf that wants a gradient?"""
    found = []

    def look(f):
        for v in f.inputs:
            if v.parent is None and v.need_grad and v.data == param.data:
                found.append(v)
    root.visit(look)
    return bool(found)


def run_case(case, seed, noise_seed=None):
    """Returns (tensors given, tensors produced, metadata)."""
    nn.clear_parameters()
    nnrandom.prng = np.random.RandomState(zlib.crc32(case["id"].encode()) & 0x7FFFFFFF)
    src = Source(case["id"], seed, noise_seed)
    given, made, meta = OrderedDict(), OrderedDict(), OrderedDict()
    ints = INT_LEAVES.get(case["function"], set())
    multi = bool(case["passes"])

    variables = OrderedDict()
    meta["inputs"] = []
    for name, spec in case["inputs"].items():
        variables[name] = nn.Variable(spec.shape, need_grad=spec.grad)
        arr = src(spec)
        given[("pass1." if multi else "") + "input." + name] = arr
        variables[name].d = arr
        meta["inputs"].append(OrderedDict(arg=name, shape=list(arr.shape), dtype=str(arr.dtype),
                                          need_grad=bool(spec.grad)))

    args, meta["args"] = resolve_args(case["args"], src, given)
    with scopes(case["scope"]):
        for path, spec in case["preset"].items():
            p = nn.Variable.from_numpy_array(src(spec), need_grad=True)
            nn.parameter.set_parameter(path, p)
        outputs = call_function(case, variables, args)

    params = nn.get_parameters(grad_only=False)
    preset = set("/".join(case["scope"] + [p]) for p in case["preset"])
    origin = {}
    for path, p in params.items():
        spec = lookup(case["params"], path)
        if spec == "missing":
            spec = None if "*" in case["keep"] or leaf(path) in case["keep"] or path in preset \
                else FILL.get(leaf(path), FILL_OTHER)
        if spec is None:
            origin[path] = "preset" if path in preset else "function"
            continue
        origin[path] = "set"
        p.d = src(spec, p.shape)
    for path, a in snapshot(params, ints).items():
        given["param." + path] = a

    gouts = [nn.Variable(y.shape) for y in outputs]
    loss = None
    for y, g in zip(outputs, gouts):
        term = F.sum(F.mul2(y, g))
        loss = term if loss is None else loss + term

    effective = None
    for k, step in enumerate([{}] + case["passes"]):
        pre = "pass{}.".format(k + 1) if multi else ""
        if k and step.get("inputs"):
            for name, spec in case["inputs"].items():
                given[pre + "input." + name] = arr = src(spec)
                variables[name].d = arr
        for name, spec in (step.get("set") or {}).items():
            for path, p in params.items():
                if leaf(path) != name:
                    continue
                if isinstance(spec, dsl.Add):
                    arr = (np.array(p.d) + src(spec.delta, p.shape)).astype(np.float32)
                else:
                    arr = src(spec, p.shape)
                p.d = arr
                given[pre + "param." + path] = arr
        for i, g in enumerate(gouts):
            nm = pre + ("grad_output" if len(gouts) == 1 else "grad_output.{}".format(i))
            given[nm] = arr = src(dsl.T(), g.shape)
            g.d = arr

        before = snapshot(params, ints)
        loss.forward()
        after = snapshot(params, ints)
        for i, y in enumerate(outputs):
            nm = "output" if len(outputs) == 1 else "output.{}".format(i)
            made[pre + nm] = np.array(y.d, dtype=np.float32)
        for path in params:
            if before[path].tobytes() != after[path].tobytes():
                made[pre + "after." + path] = after[path]

        # Gradients start at zero, except for registered need_grad parameters that
        # are not gradient leaves of this graph: those hold a sentinel that must
        # survive.  (Only one backward per forward: recurrent layers free their
        # internal buffers on the way.)
        eff = [p for p, v in params.items() if v.need_grad and is_grad_leaf(loss, v)]
        idle = [p for p, v in params.items() if v.need_grad and p not in eff]
        if loss.need_grad:
            for v in list(params.values()) + list(variables.values()):
                v.grad.zero()
            for p in idle:
                params[p].grad.fill(SENTINEL)
            loss.backward()
            for p in idle:
                assert np.all(params[p].g == SENTINEL), (case["id"], p)
        for name, spec in case["inputs"].items():
            if spec.grad:
                made[pre + "grad_input." + name] = np.array(variables[name].g, dtype=np.float32)
        assert effective is None or effective == eff
        effective = eff
        for path in eff:
            made[pre + "grad_param." + path] = np.array(params[path].g, dtype=np.float32)

    meta["outputs"] = [list(y.shape) for y in outputs]
    meta["parameters"] = [OrderedDict(path=p, shape=list(v.shape), need_grad=bool(v.need_grad),
                                      receives_grad=p in effective, origin=origin[p])
                          for p, v in params.items()]
    if case["check"] in ("svd", "cpd"):
        add_factor_expectations(case, params, given, made, meta)
    return given, made, meta


def add_factor_expectations(case, params, given, made, meta):
    """What a factorised layer stands for: the dense weight it approximates."""
    p = {leaf(k): np.array(v.d, dtype=np.float64) for k, v in params.items()}
    if case["function"] == "svd_affine":
        w = np.tensordot(p["U"], p["V"], axes=1)
        ref = given.get("arg.uv_init")
    elif case["function"] == "svd_convolution":
        n_out, r, kern = p["V"].shape[0], case["args"]["r"], p["U"].shape[1:]
        n_in = p["U"].shape[0] // r
        u = p["U"].reshape(n_in, r, -1)
        v = p["V"].reshape(n_out, n_in, r)
        w = np.einsum("irk,oir->oik", u, v).reshape((n_out, n_in) + kern)
        ref = given.get("arg.uv_init")
    else:
        ref = given.get("arg.oik_init")
        o, i, k = p["O"], p["I"], p["K"]
        r, kern = k.shape[0], k.shape[1:]
        w = np.einsum("or,ri,rk->oik", o.reshape(-1, r), i.reshape(r, -1), k.reshape(r, -1))
        w = w.reshape((o.shape[0], i.shape[1]) + kern)
        if ref is not None and not case["preset"]:
            # Start of the alternating least squares: modes 1 (input maps) and 2
            # (flattened kernel); mode 0 is solved first and needs no start.
            start = np.random.RandomState(313)
            made["als.start_i"] = np.array(start.rand(i.shape[1], r), dtype=np.float32)
            made["als.start_k"] = np.array(start.rand(int(np.prod(kern)), r), dtype=np.float32)
    made["expect.weight"] = w.astype(np.float32)
    if ref is not None:
        meta["relative_error"] = float(np.linalg.norm(w.reshape(-1) - ref.reshape(-1).astype(np.float64))
                                       / np.linalg.norm(ref.astype(np.float64)))


def round_up(x):
    """One significant digit, rounded up."""
    if x <= 0:
        return 0.0
    e = np.floor(np.log10(x))
    return float("{:.0e}".format(np.ceil(x / 10 ** e) * 10 ** e))


def calibrate(case, seed, made):
    """Absolute tolerance: the largest change seen when every given float tensor
    is perturbed by 5e-7 relative (about eight units in the last place), rounded
    up, at least 2e-6."""
    if case["tolerance"]:
        return case["tolerance"]
    if case["edge"]:
        return OrderedDict(rtol=1e-5, atol=1e-5)
    worst = 0.0
    for s in (1, 2, 3):
        _, other, _ = run_case(case, seed, noise_seed=s)
        for k, a in made.items():
            if a.dtype != np.float32 or a.size == 0:
                if not np.array_equal(a, other[k]):
                    raise RuntimeError("{}: {} depends on rounding".format(case["id"], k))
                continue
            d = np.abs(a.astype(np.float64) - other[k]).max()
            if not d <= 1e-4 * max(1.0, np.abs(a).max()):
                raise RuntimeError("{}: {} is next to a discontinuity ({})".format(case["id"], k, d))
            worst = max(worst, d)
    return OrderedDict(rtol=1e-5, atol=round_up(max(2e-6, worst)))


def write_cases(cases, out, seed, only):
    entries, seen = [], set()
    for case in cases:
        if only and only not in case["id"]:
            continue
        assert case["id"] not in seen, case["id"]
        seen.add(case["id"])
        try:
            given, made, meta = run_case(case, seed)
            tol = calibrate(case, seed, made)
        except Exception:
            print("failed:", case["id"], file=sys.stderr)
            raise
        for k, a in list(given.items()) + list(made.items()):
            assert np.all(np.isfinite(a)), (case["id"], k)
        rel = "{}/{}.safetensors".format(case["function"], case["id"])
        os.makedirs(os.path.join(out, case["function"]), exist_ok=True)
        tensors = OrderedDict((k, np.ascontiguousarray(v) if v.shape else v)
                              for k, v in list(given.items()) + list(made.items()))
        save_file(tensors, os.path.join(out, rel))
        e = OrderedDict(id=case["id"], file=rel, function=case["function"])
        if case["notes"]:
            e["notes"] = case["notes"]
        e["scope"] = case["scope"]
        e["args"] = meta["args"]
        e["inputs"] = meta["inputs"]
        if case["calls"]:
            e["calls"] = case["calls"]
        if case["preset"]:
            e["preset"] = ["/".join(case["scope"] + [p]) for p in case["preset"]]
        e["outputs"] = meta["outputs"]
        e["parameters"] = meta["parameters"]
        e["passes"] = 1 + len(case["passes"])
        e["check"] = case["check"]
        e["exact"] = sorted(k for k in made if ".after." in "." + k and
                            (leaf(k) in case["exact"] or made[k].dtype == np.int32))
        if "relative_error" in meta:
            e["relative_error"] = meta["relative_error"]
        e["tolerance"] = tol
        entries.append(e)
    os.makedirs(out, exist_ok=True)
    write_json(os.path.join(out, "manifest.json"),
               OrderedDict(nnabla=nn.__version__, numpy=np.__version__, cases=entries))
    return entries


# --------------------------------------------------------------------------
# JSON helpers
# --------------------------------------------------------------------------
def plain(v):
    if isinstance(v, (np.floating, np.integer, np.bool_)):
        return v.item()
    if isinstance(v, np.ndarray):
        return plain(v.tolist())
    if isinstance(v, dict):
        return OrderedDict((k, plain(x)) for k, x in v.items())
    if isinstance(v, (list, tuple)):
        return [plain(x) for x in v]
    return v


def dump(v, ind=0, width=100):
    """JSON that keeps short containers on one line."""
    flat = json.dumps(v)
    if len(flat) + ind <= width or not isinstance(v, (list, dict)) or not v:
        return flat
    pad = " " * (ind + 1)
    if isinstance(v, dict):
        body = ",\n".join("{}{}: {}".format(pad, json.dumps(k), dump(x, ind + 1, width))
                          for k, x in v.items())
        return "{\n" + body + "\n" + " " * ind + "}"
    return "[\n" + ",\n".join(pad + dump(x, ind + 1, width) for x in v) + "\n" + " " * ind + "]"


def write_json(path, v):
    with open(path, "w") as f:
        f.write(dump(plain(v)) + "\n")


# --------------------------------------------------------------------------
# initializers
# --------------------------------------------------------------------------
def write_initializers(out, table):
    rows = []
    for inmaps, outmaps, kernel in table["triples"]:
        kw = {} if kernel is None else {"kernel": tuple(kernel)}
        rows.append(OrderedDict(
            inmaps=inmaps, outmaps=outmaps, kernel=kernel,
            calc_normal_std_he_forward=I.calc_normal_std_he_forward(inmaps, outmaps, **kw),
            calc_normal_std_he_backward=I.calc_normal_std_he_backward(inmaps, outmaps, **kw),
            calc_normal_std_glorot=I.calc_normal_std_glorot(inmaps, outmaps, **kw),
            calc_uniform_lim_glorot=list(I.calc_uniform_lim_glorot(inmaps, outmaps, **kw))))
    samples, desc = OrderedDict(), []
    for i, s in enumerate(table["samples"]):
        rng = np.random.RandomState(s["seed"]) if "seed" in s else None
        kind, shape = s["kind"], tuple(s["shape"])
        if kind == "constant":
            init = I.ConstantInitializer(*([s["value"]] if "value" in s else []))
        elif kind == "normal":
            init = I.NormalInitializer(*([s["sigma"]] if "sigma" in s else []), rng=rng)
        else:
            init = I.UniformInitializer(*([tuple(s["lim"])] if "lim" in s else []), rng=rng)
        a = init(shape)
        key = "sample{}".format(i)
        samples[key] = a
        d = OrderedDict(s)
        d.update(tensor=key, dtype=str(a.dtype), mean=float(a.astype(np.float64).mean()),
                 std=float(a.astype(np.float64).std()), min=float(a.min()), max=float(a.max()))
        desc.append(d)
    save_file(samples, os.path.join(out, "initializer_samples.safetensors"))
    write_json(os.path.join(out, "initializers.json"), OrderedDict(
        notes=[
            "kernel null means the argument was left out (default (1, 1)).",
            "samples use numpy's legacy RandomState(seed): rng.randn(*shape)*sigma and "
            "rng.uniform(lo, hi, size=shape), computed in float64 and then rounded to float32.",
        ],
        formulas=OrderedDict(
            calc_normal_std_he_forward="sqrt(2 / (prod(kernel) * inmaps))",
            calc_normal_std_he_backward="sqrt(2 / (prod(kernel) * outmaps))",
            calc_normal_std_glorot="sqrt(2 / (prod(kernel) * (inmaps + outmaps)))",
            calc_uniform_lim_glorot="d = sqrt(6 / (prod(kernel) * (inmaps + outmaps))); (-d, d)"),
        table=rows, samples=desc))


def describe_initializer(init):
    if isinstance(init, np.ndarray):
        return OrderedDict(kind="array")
    name = type(init).__name__
    if name == "ConstantInitializer":
        return OrderedDict(kind="constant", value=init.value)
    if name == "UniformInitializer":
        return OrderedDict(kind="uniform", lim=list(init.lim))
    if name == "NormalInitializer":
        return OrderedDict(kind="normal", sigma=init.sigma)
    return OrderedDict(kind=name)


def write_default_initializers(out, table):
    """Reads back the initializer object each function attached to the
    parameters it created, for a few call configurations."""
    rows = []
    for cfg in table:
        nn.clear_parameters()
        nnrandom.prng = np.random.RandomState(313)
        kw = dict(cfg["args"])
        xs = {k: nn.Variable(v) for k, v in cfg["inputs"].items()}
        if cfg["function"] == "LSTMCell":
            PF.LSTMCell(kw["batch_size"], kw["state_size"])(xs["x"])
        else:
            getattr(PF, cfg["function"])(**xs, **kw)
        ps = []
        for path, p in nn.get_parameters(grad_only=False).items():
            d = OrderedDict(path=path, shape=list(p.shape), need_grad=bool(p.need_grad))
            info = getattr(p, "info", None)
            d["initializer"] = describe_initializer(info.initializer) if info else \
                OrderedDict(kind="factorisation")
            if leaf(path) in cfg.get("law", {}):
                d["law"] = cfg["law"][leaf(path)]
            ps.append(d)
        rows.append(OrderedDict(function=cfg["function"], inputs=cfg["inputs"], args=cfg["args"],
                                parameters=ps))
    write_json(os.path.join(out, "default_initializers.json"), OrderedDict(
        notes=["Exact initializers attached by the library for concrete calls. `law` states the "
               "rule. kind 'factorisation': the factors come from decomposing a dense weight drawn "
               "from uniform(calc_uniform_lim_glorot(inmaps, outmaps[, kernel]))."],
        table=rows))


# --------------------------------------------------------------------------
# parameter management API
# --------------------------------------------------------------------------
def listing(path="", grad_only=True):
    return [OrderedDict(path=k, shape=list(v.shape), need_grad=bool(v.need_grad))
            for k, v in nn.get_parameters(path=path, grad_only=grad_only).items()]


def run_api_step(step):
    op, a = step["op"], step.get("args", {})
    if op == "get_parameter_or_create":
        kw = {k: a[k] for k in ("need_grad", "as_need_grad") if k in a}
        init = a.get("initializer")
        if isinstance(init, dict) and "constant" in init:
            init = I.ConstantInitializer(init["constant"])
        elif isinstance(init, dict):
            init = np.array(init["array"], dtype=np.float32)
        v = nn.parameter.get_parameter_or_create(
            a["name"], tuple(a["shape"]) if a.get("shape") is not None else None, init, **kw)
        reg = nn.parameter.get_parameter(a["name"])
        return OrderedDict(returned=OrderedDict(shape=list(v.shape), need_grad=bool(v.need_grad),
                                                values=np.array(v.d).reshape(-1).tolist()),
                           registered_need_grad=bool(reg.need_grad),
                           same_storage=bool(v.data == reg.data))
    if op == "get_parameter":
        v = nn.parameter.get_parameter(a["name"])
        return None if v is None else OrderedDict(shape=list(v.shape), need_grad=bool(v.need_grad),
                                                  values=np.array(v.d).reshape(-1).tolist())
    if op == "set_parameter":
        nn.parameter.set_parameter(a["name"], nn.Variable.from_numpy_array(
            np.array(a["values"], dtype=np.float32), need_grad=a.get("need_grad", True)))
        return None
    if op == "pop_parameter":
        v = nn.parameter.pop_parameter(a["name"])
        return None if v is None else list(v.shape)
    if op == "get_parameters":
        return listing(**a)
    if op == "clear_parameters":
        nn.clear_parameters()
        return None
    if op == "call":
        xs = {k: nn.Variable(v) for k, v in a["inputs"].items()}
        y = getattr(PF, a["function"])(**xs, **a.get("args", {}))
        return [list(v.shape) for v in (y if isinstance(y, tuple) else (y,))]
    raise ValueError(op)


def write_parameter_api(out, scenarios):
    result = []
    for sc in scenarios:
        nn.clear_parameters()
        steps = []
        for step in sc["steps"]:
            s = OrderedDict(scope=step.get("scope", []), op=step["op"], args=step.get("args", {}))
            with scopes(s["scope"]):
                try:
                    s["result"] = run_api_step(step)
                except (ValueError, AssertionError, RuntimeError) as e:
                    s["error"] = type(e).__name__
            steps.append(s)
        result.append(OrderedDict(name=sc["name"], notes=sc.get("notes", ""), steps=steps,
                                  final=listing(grad_only=False)))
    nn.clear_parameters()
    write_json(os.path.join(out, "parameter_api.json"), OrderedDict(scenarios=result))


# --------------------------------------------------------------------------
# calls that must be refused
# --------------------------------------------------------------------------
def write_errors(out, table):
    rows = []
    for e in table:
        nn.clear_parameters()
        args = {k: (np.zeros(v["zeros"], np.float32) if isinstance(v, dict) else v)
                for k, v in e["args"].items()}
        xs = {k: nn.Variable(v) for k, v in e["inputs"].items()}
        try:
            getattr(PF, e["function"])(**xs, **args)
        except Exception as err:  # noqa: BLE001 - any refusal counts
            rows.append(OrderedDict(function=e["function"], inputs=e["inputs"], args=e["args"],
                                    why=e["why"], error=type(err).__name__))
        else:
            raise RuntimeError("accepted: {}".format(e))
    nn.clear_parameters()
    write_json(os.path.join(out, "errors.json"), OrderedDict(
        notes=["Calls that nnabla refuses while the graph is being built. `error` is the Python "
               "exception class. {\"zeros\": shape} stands for an array argument."],
        table=rows))


# --------------------------------------------------------------------------
# checkpoints
# --------------------------------------------------------------------------
class FixedClock:
    """Stands in for the `time` module inside zipfile, so that archives do not
    carry the moment they were written."""

    @staticmethod
    def time():
        return 0.0

    @staticmethod
    def localtime(_=None):
        return (2020, 1, 1, 0, 0, 0, 0, 1, 0)


def record_expected(out, name, params=None):
    params = nn.get_parameters(grad_only=False) if params is None else params
    tensors = OrderedDict((k, np.array(v.d)) for k, v in params.items())
    save_file(tensors, os.path.join(out, name + ".expected.safetensors"))
    return [OrderedDict(path=k, shape=list(v.shape), need_grad=bool(v.need_grad),
                        dtype=str(tensors[k].dtype)) for k, v in params.items()]


def fill_all(rng):
    for k, p in nn.get_parameters(grad_only=False).items():
        spec = FILL.get(leaf(k), FILL_OTHER) or FILL_OTHER
        p.d = draw(rng, spec, p.shape)


def build_network(spec, x):
    """Two convolutions with batch normalisation and PReLU, then an affine."""
    h = x
    with nn.parameter_scope(spec["root"]):
        with nn.parameter_scope("features/stage1"):
            h = PF.convolution(h, spec["maps"][0], (3, 3), pad=(1, 1), name="conv1")
            h = PF.batch_normalization(h, batch_stat=False)
            h = PF.prelu(h)
        with nn.parameter_scope("features"), nn.parameter_scope("stage2"):
            h = PF.convolution(h, spec["maps"][1], (3, 3), stride=(2, 2), with_bias=False,
                               fix_parameters=True)
            h = PF.batch_normalization(h, batch_stat=False, name="norm")
            h = PF.prelu(h, shared=False)
        h = PF.affine(h, spec["classes"], name="classifier")
    return h


def write_checkpoints(out, spec):
    import zipfile
    from nnabla.utils.save import save
    real_time, zipfile.time = zipfile.time, FixedClock
    os.makedirs(out, exist_ok=True)
    rng = np.random.RandomState(spec["seed"])
    sets = OrderedDict()

    def add(name, formats, entries, notes):
        sets[name] = OrderedDict(notes=notes, files=[name + f for f in formats],
                                 expected=name + ".expected.safetensors", parameters=entries)

    def dump_both(name, notes, params=None):
        for ext in (".h5", ".protobuf"):
            nn.save_parameters(os.path.join(out, name + ext), params)
        add(name, [".h5", ".protobuf"], record_expected(out, name, params), notes)

    # 1. the small model, in all containers
    nn.clear_parameters()
    x = nn.Variable(spec["model"]["input"])
    y = build_network(spec["model"], x)
    fill_all(rng)
    # need_grad is a property of the registered parameter; switch some of them off.
    for path in spec["model"]["frozen"]:
        nn.get_parameters(grad_only=False)[path].need_grad = False
    dump_both("model", "two convolutions, batch normalisation, PReLU, affine; nested scopes; "
                       "mixed need_grad")
    contents = {"networks": [{"name": "net", "batch_size": spec["model"]["input"][0],
                              "outputs": {"y": y}, "names": {"x": x}}],
                "executors": [{"name": "run", "network": "net", "data": ["x"], "output": ["y"]}]}
    save(os.path.join(out, "model.nnp"), contents)
    save(os.path.join(out, "model_net.nntxt"), contents, include_params=True)
    save(os.path.join(out, "model_net.protobuf"), contents, include_params=True)
    sets["model"]["files"] += ["model.nnp", "model_net.nntxt", "model_net.protobuf"]
    x.d = xin = draw(rng, dsl.T(), x.shape)
    y.forward()
    save_file({"x": xin, "y": np.array(y.d)}, os.path.join(out, "model.forward.safetensors"))
    sets["model"]["forward"] = OrderedDict(
        file="model.forward.safetensors", root=spec["model"]["root"], maps=spec["model"]["maps"],
        classes=spec["model"]["classes"], rtol=1e-5, atol=1e-5)

    # 2. a scalar parameter and nothing else
    nn.clear_parameters()
    PF.prelu(nn.Variable((2, 3)), name="act")
    fill_all(rng)
    dump_both("scalar", "PReLU with a shared slope: a parameter of shape ()")

    # 3. nothing at all
    nn.clear_parameters()
    dump_both("empty", "no parameters")

    # 4. registration order differs from alphabetical order; scopes left and re-entered
    nn.clear_parameters()
    for path, shape, ng in spec["order"]:
        nn.parameter.get_parameter_or_create(path, tuple(shape), I.ConstantInitializer(0), ng)
    fill_all(rng)
    dump_both("order", "names registered in a non-alphabetical order with interleaved scopes; the "
                       "saved order is the depth-first order of the scope tree")

    # 5. integer-valued state after real forward passes
    nn.clear_parameters()
    xi = nn.Variable(spec["state"]["input"])
    h = PF.mean_subtraction(xi, name="pre")
    h = PF.inq_affine(h, spec["state"]["outmaps"], inq_iterations=(0, 2),
                      selection_algorithm="largest_abs", name="q")
    ps = nn.get_parameters(grad_only=False)
    ps["q/inq_affine/W"].d = draw(rng, dsl.T(scale=0.5), ps["q/inq_affine/W"].shape)
    for _ in range(spec["state"]["passes"]):
        xi.d = draw(rng, dsl.T(), xi.shape)
        h.forward()
    dump_both("state", "counter t of mean_subtraction and indicator I of inq_affine: int32 in "
                       "hdf5, float in protobuf")

    # 6. only a chosen subset, in a chosen order
    nn.clear_parameters()
    build_network(spec["model"], nn.Variable(spec["model"]["input"]))
    fill_all(rng)
    allp = nn.get_parameters(grad_only=False)
    subset = OrderedDict((spec["rename"].get(k, k), allp[k]) for k in spec["subset"])
    dump_both("subset", "save_parameters(path, params=...) with a reordered, partly renamed dict",
              subset)

    # 7. a large one
    nn.clear_parameters()
    for path, shape in spec["large"]:
        nn.parameter.get_parameter_or_create(path, tuple(shape), I.ConstantInitializer(0))
    fill_all(rng)
    dump_both("large", "about one megabyte")

    # 8. more members in one group than a single index node holds
    nn.clear_parameters()
    with nn.parameter_scope(spec["many"]["scope"]):
        for i in range(spec["many"]["count"]):
            nn.parameter.get_parameter_or_create(
                spec["many"]["name"].format(i), (1 + i % 3,), I.ConstantInitializer(0), i % 4 != 0)
    fill_all(rng)
    dump_both("many", "several hundred small parameters in one scope")

    # 9. loaded from protobuf and saved again without running anything
    nn.clear_parameters()
    nn.load_parameters(os.path.join(out, "order.protobuf"))
    dump_both("resaved", "order.protobuf loaded and saved again: values loaded from protobuf are "
                         "held as float64, so the hdf5 datasets are float64")

    nn.clear_parameters()
    zipfile.time = real_time
    write_json(os.path.join(out, "checkpoints.json"), OrderedDict(
        notes=["`parameters` lists path, shape, need_grad and the dtype found in memory, in the "
               "order in which the file stores them (`index` attribute / message order)."],
        sets=sets))


# --------------------------------------------------------------------------
def load_table(path):
    spec = importlib.util.spec_from_file_location("case_table", path)
    mod = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mod)
    return mod


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser()
    ap.add_argument("--cases", default=os.path.join(here, "cases.py"))
    ap.add_argument("--out", default=here)
    ap.add_argument("--only", help="run only the cases whose id contains this; for debugging, "
                                   "give another --out")
    a = ap.parse_args()
    t = load_table(a.cases)
    if not a.only:
        for name in sorted(set(c["function"] for c in t.CASES)) + ["beyond"]:
            shutil.rmtree(os.path.join(a.out, name), ignore_errors=True)
    n = len(write_cases(t.CASES, a.out, t.SEED, a.only))
    m = len(write_cases(t.BEYOND, os.path.join(a.out, "beyond"), t.SEED, a.only))
    print("{} cases, {} beyond".format(n, m))
    if not a.only:
        write_initializers(a.out, t.INITIALIZERS)
        write_default_initializers(a.out, t.DEFAULT_INITIALIZERS)
        write_parameter_api(a.out, t.PARAMETER_API)
        write_errors(a.out, t.ERRORS)
        write_checkpoints(os.path.join(a.out, "checkpoints"), t.CHECKPOINTS)


if __name__ == "__main__":
    main()
