#!/usr/bin/env python3
"""Whether NNabla, h5py, NumPy and safetensors agree with the `layerfn` program about files.

Usage: check.py LAYERFN
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LAYERFN = sys.argv[1] if len(sys.argv) > 1 else "target/release/layerfn"
FIXTURES = Path(__file__).parent.parent / "golden" / "checkpoints"
# Names that need care, scalars, empty arrays, values that arithmetic would change.
ODD = {
    "odd/values": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 0.1], np.float32).reshape(2, 3),
    "odd/scalar": np.array(0.1, np.float32),
    "odd/empty": np.zeros((3, 0, 2), np.float32),
    "odd/with blank, . and ..dots": np.ones(1, np.float32),
    "odd/größe/重み/🙂": np.ones((1, 1, 1, 1), np.float32),
    "a/last": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
}
ODD["odd/values"].view(np.uint32)[0, 0] = 0x7FC01234
TYPED = {
    f"typed/{name}": np.array([0, 1, 1], name)
    for name in ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f8"]
}
results = {"passed": 0, "failed": 0, "skipped": 0}


def note(kind, what, why=""):
    results[kind] += 1
    print(f"{kind}: {what}{': ' if why else ''}{why}")


def check(what, f):
    try:
        f()
    except Exception as error:  # noqa: BLE001: every failure is a result
        note("failed", what, f"{type(error).__name__}: {error}")
    else:
        note("passed", what)


def optional(name):
    try:
        return __import__(name)
    except ImportError:
        note("skipped", f"everything with {name}", "it is not installed")
        return None


def layerfn(*arguments):
    return subprocess.run([LAYERFN, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def listed(file):
    """(path, shape, need_grad) as layerfn sees them."""
    return [(p["path"], tuple(p["shape"]), p["need_grad"]) for p in json.loads(layerfn("inspect", "--json", file))["parameters"]]


def same(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r} is not {wanted!r}")


def bits(array):
    return np.ascontiguousarray(array).tobytes()


def main():
    nnabla, h5py, st = optional("nnabla"), optional("h5py"), optional("safetensors.numpy")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sets = sorted(path.stem for path in FIXTURES.glob("*.h5"))
        for name in sets:
            source = FIXTURES / f"{name}.h5"
            if nnabla:
                for extension in ["h5", "protobuf", "nntxt", "nnp"]:
                    check(f"nnabla reads {name}.{extension}", lambda: by_nnabla(nnabla, source, folder / f"{name}.{extension}"))
            if h5py:
                check(f"h5py reads {name}.h5", lambda: by_h5py(h5py, source, folder / f"again-{name}.h5"))
            if st:
                check(f"safetensors reads {name}", lambda: by_safetensors(h5py, source, folder / f"{name}.safetensors"))
            check(f"numpy reads {name}.npz", lambda: by_numpy(source, folder / f"{name}.npz"))
        odd, typed = folder / "odd.npz", folder / "typed.npz"
        np.savez(odd, **ODD)
        np.savez(typed, **ODD, **TYPED)
        if nnabla:
            for extension in ["h5", "protobuf", "nntxt", "nnp"]:
                check(f"nnabla reads odd.{extension}", lambda: odd_by_nnabla(nnabla, odd, folder / f"odd.{extension}"))
            for extension in ["h5", "protobuf", "nntxt", "prototxt", "nnp"]:
                check(f"layerfn reads nnabla's {extension}", lambda: from_nnabla(nnabla, folder / f"own.{extension}"))
        if h5py:
            check("h5py reads typed.h5", lambda: equal(typed_by_h5py(h5py, typed, folder / "typed.h5"), ODD | TYPED))
        if st:
            check("safetensors reads typed", lambda: equal(typed_by_safetensors(typed, folder / "typed.safetensors"), ODD | TYPED))
            check("layerfn reads safetensors'", lambda: from_safetensors(folder / "own.safetensors"))
        check("numpy reads typed.npz again", lambda: equal(by_way_of(typed, folder / "way.safetensors"), ODD | TYPED))
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**results))
    return 1 if results["failed"] else 0


def nnabla_parameters(nnabla, file):
    nnabla.clear_parameters()
    nnabla.load_parameters(str(file))
    return nnabla.get_parameters(grad_only=False)


def by_nnabla(nnabla, source, target):
    layerfn("convert", source, target, "--allow-loss")
    wanted = {path: (v.d.copy(), v.need_grad) for path, v in nnabla_parameters(nnabla, source).items()}
    got = nnabla_parameters(nnabla, target)
    same(list(got), list(wanted), "paths")
    for path, (values, need_grad) in wanted.items():
        same(got[path].need_grad, need_grad, path)
        same(got[path].d.shape, values.shape, path)
        same(bits(got[path].d.astype(np.float32)), bits(values.astype(np.float32)), path)


def datasets(h5py, file):
    found = []
    with h5py.File(file, "r") as h5:
        h5.visititems(lambda path, item: found.append((int(item.attrs["index"]), path, bool(item.attrs["need_grad"]), item[()])) if isinstance(item, h5py.Dataset) else None)
    return sorted(found, key=lambda entry: entry[:2])


def by_h5py(h5py, source, target):
    layerfn("convert", source, target)
    for got, wanted in zip(datasets(h5py, target), datasets(h5py, source), strict=True):
        same(got[:3], wanted[:3], "index, path, need_grad")
        same((got[3].dtype, got[3].shape, bits(got[3])), (wanted[3].dtype, wanted[3].shape, bits(wanted[3])), got[1])


def by_safetensors(h5py, source, target):
    from safetensors.numpy import load_file

    layerfn("convert", source, target)
    got = load_file(target)
    for _, path, _, values in datasets(h5py, source):
        same((got[path].dtype, got[path].shape, bits(got[path])), (values.dtype, values.shape, bits(values)), path)


def by_numpy(source, target):
    layerfn("convert", source, target)
    with np.load(target) as got:
        same([(path, got[path].shape) for path in got.files], [entry[:2] for entry in listed(source)], "paths and shapes")


def arrays(file):
    with np.load(file) as found:
        return {path: found[path] for path in found.files}


def equal(got, wanted):
    same(set(got), set(wanted), "paths")
    for path, values in wanted.items():
        same((got[path].dtype, got[path].shape, bits(got[path])), (values.dtype, values.shape, bits(values)), path)


def odd_by_nnabla(nnabla, source, target):
    # NNabla's own names are ASCII.
    layerfn("rename", source, target, "--rule", "odd/größe/**=odd/size")
    got = {path: v.d.astype(np.float32) for path, v in nnabla_parameters(nnabla, target).items()}
    wanted = {"odd/size" if not path.isascii() else path: values for path, values in ODD.items()}
    if target.suffix == ".nntxt":
        # Text has one NaN; the bits of another are in a comment, which NNabla passes over.
        wanted["odd/values"] = np.where(np.isnan(wanted["odd/values"]), np.float32("nan"), wanted["odd/values"])
    same(list(got), list(wanted), "order")
    equal(got, wanted)


def typed_by_h5py(h5py, source, target):
    layerfn("convert", source, target)
    return {path: np.asarray(values) for _, path, _, values in datasets(h5py, target)}


def typed_by_safetensors(source, target):
    from safetensors.numpy import load_file

    layerfn("convert", source, target)
    return load_file(target)


def by_way_of(source, between):
    layerfn("convert", source, between)
    target = between.with_suffix(".npz")
    layerfn("convert", between, target)
    return arrays(target)


def from_nnabla(nnabla, file):
    import nnabla.parametric_functions as PF
    from nnabla.utils.save import save

    nnabla.clear_parameters()
    x = nnabla.Variable((2, 3, 8, 8))
    with nnabla.parameter_scope("net"):
        y = PF.affine(PF.batch_normalization(PF.convolution(x, 4, (3, 3), name="c1")), 5)
    if file.suffix in [".h5", ".protobuf"]:
        nnabla.save_parameters(str(file))
    else:
        network = {"name": "net", "batch_size": 2, "outputs": {"y": y}, "names": {"x": x}}
        executor = {"name": "run", "network": "net", "data": ["x"], "output": ["y"]}
        save(str(file), {"networks": [network], "executors": [executor]}, include_params=True)
    wanted = {path: (v.d.copy(), v.need_grad) for path, v in nnabla.get_parameters(grad_only=False).items()}
    same(listed(file), [(path, d.shape, need_grad) for path, (d, need_grad) in wanted.items()], "parameters")
    target = file.with_name(f"{file.name}.npz")
    layerfn("convert", file, target, "--allow-loss")
    equal(arrays(target), {path: d.astype(np.float32) for path, (d, _) in wanted.items()})


def from_safetensors(file):
    from safetensors.numpy import save_file

    save_file(ODD | TYPED, file, {"format": "np"})
    target = file.with_suffix(".npz")
    layerfn("convert", file, target, "--allow-loss")
    equal(arrays(target), ODD | TYPED)


if __name__ == "__main__":
    sys.exit(main())
