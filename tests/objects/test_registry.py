"""Kinds of one's own: layouts of Datasets, Python classes, and those of other packages."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.objects import registry


class Probe:
    def __init__(self, depths, name="p"):
        self.depths, self.name = list(depths), name

    def __eq__(self, other):
        return isinstance(other, Probe) and vars(self) == vars(other)

    __hash__ = None


def register_probe(**more):
    registry.register_kind(
        "probe",
        cls=Probe,
        to_dataset=lambda probe: xr.Dataset(
            {"depth": ("channel", np.array(probe.depths, float))}, attrs={"name": probe.name}
        ),
        from_dataset=lambda ds: Probe(ds.depth.values.tolist(), ds.attrs["name"]),
        **more,
    )


def test_a_class_of_ones_own_is_stored_alone_and_nested(own_kinds, tmp_path):
    register_probe(summary=lambda ds: {"channels": ds.sizes["channel"]})
    tree = labtree.create_workspace()
    tree.ws.store("rec", "probe", Probe([1.0, 2.0]))
    tree.ws.store("rec", "nested", {"first": [Probe([3.0]), 1]})
    path = tree.ws.save(tmp_path / "w")
    assert labtree.load_item(path, "rec", "probe") == Probe([1.0, 2.0])
    assert labtree.load_item(path, "rec", "nested") == {"first": [Probe([3.0]), 1]}
    info = tree.ws.get_info("rec", "probe")
    assert (info["type"], info["channels"]) == ("probe", 2)


def test_what_a_class_makes_is_validated_and_refused(own_kinds):
    def validate(ds):
        if not ds.sizes["channel"]:
            raise ValueError("a probe needs a channel")

    register_probe(validate=validate)
    tree = labtree.create_workspace()
    with pytest.raises(ValueError, match="a probe needs a channel"):
        tree.ws.store("rec", "k", Probe([]))
    assert tree.ws.list_keys() == {}


def test_a_class_is_not_its_subclass(own_kinds):
    register_probe()
    with pytest.raises(TypeError, match="register_kind"):
        labtree.create_workspace().ws.store("rec", "k", type("Finer", (Probe,), {})([1.0]))


def test_a_layout_of_ones_own_is_validated_drawn_and_summarized(own_kinds):
    def validate(ds):
        if "power" not in ds:
            raise ValueError("a spectrum needs the variable 'power'")

    drawn = []
    registry.register_kind(
        "spectrum",
        validate=validate,
        summary=lambda ds: {"bins": ds.sizes["frequency"]},
        plot=lambda ds, **options: drawn.append(options),
    )
    spectrum = xr.Dataset({"power": ("frequency", [3.0])}, attrs={"labtree_kind": "spectrum"})
    tree = labtree.create_workspace()
    tree.ws.store("rec", "s", spectrum)
    assert tree.ws["rec", "s"].identical(spectrum)
    assert tree.ws.get_info("rec", "s")["bins"] == 1
    spectrum.ws.plot(color="k")
    assert drawn == [{"color": "k"}]
    with pytest.warns(labtree.LossWarning, match="a spectrum needs the variable 'power'"):
        tree.ws.store("rec", "t", spectrum.rename(power="p"))
    assert tree.ws.get_info("rec", "t")["type"] == "dataset"


def test_layouts_may_have_a_form_of_their_own_on_the_disk(own_kinds):
    registry.register_kind(
        "scaled",
        to_dataset=lambda ds: ds.assign(v=(ds.v * 100).astype("i2")),
        from_dataset=lambda ds: ds.assign(v=ds.v / 100),
    )
    scaled = xr.Dataset({"v": ("x", [1.25, 2.5])}, attrs={"labtree_kind": "scaled"})
    tree = labtree.create_workspace()
    tree.ws.store("rec", "k", scaled)
    assert tree["rec/k"].v.dtype == np.int16
    assert tree.ws["rec", "k"].v.values.tolist() == [1.25, 2.5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dataset",), "there is a kind 'dataset' already"),
        (("",), "a non-empty str"),
        ((1,), "a non-empty str"),
    ],
)
def test_names_are_checked(arguments, words):
    with pytest.raises(ValueError, match=words):
        registry.register_kind(*arguments)


def test_a_class_needs_both_ways_and_must_be_free(own_kinds):
    with pytest.raises(ValueError, match="needs to_dataset= and from_dataset="):
        registry.register_kind("mine", cls=Probe, to_dataset=lambda probe: xr.Dataset())
    with pytest.raises(ValueError, match="dict is of the kind 'dict' already"):
        registry.register_kind(
            "mine", cls=dict, to_dataset=lambda obj: xr.Dataset(), from_dataset=dict
        )


def test_what_is_no_dataset_is_said(own_kinds):
    registry.register_kind(
        "odd", cls=Probe, to_dataset=lambda probe: probe.depths, from_dataset=lambda ds: ds
    )
    with pytest.raises(ValueError, match="of the kind 'odd' must return a Dataset, found list"):
        labtree.create_workspace().ws.store("rec", "k", Probe([1.0]))


PACKAGE = """
import xarray as xr
import labtree

class Electrode:
    def __init__(self, ohm):
        self.ohm = ohm

def register():
    labtree.register_kind(
        "electrode",
        cls=Electrode,
        to_dataset=lambda electrode: xr.Dataset({"ohm": ((), electrode.ohm)}),
        from_dataset=lambda ds: Electrode(float(ds.ohm)),
    )
"""


def install(folder, name, source, entry, group="labtree.kinds"):
    """Install a package as pip would leave it: a module, and what it says of itself."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {entry}\n")


def run(folder, code):
    lines = [f"import sys; sys.path.insert(0, {str(folder)!r})", textwrap.dedent(code)]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )


def test_a_package_that_is_installed_brings_its_kinds(tmp_path):
    install(tmp_path, "electrodes", PACKAGE, "electrodes:register")
    target = str(tmp_path / "w")
    stored = run(
        tmp_path,
        f"""
        import labtree, electrodes
        tree = labtree.create_workspace()
        tree.ws.store("rec", "e", electrodes.Electrode(50.0))
        tree.ws.save({target!r})
        """,
    )
    assert stored.returncode == 0, stored.stderr
    read = run(
        tmp_path,
        f"""
        import labtree
        print(labtree.load_item({target!r}, "rec", "e").ohm)
        """,
    )
    assert read.stdout.strip() == "50.0", read.stderr
    # Where the package is not installed the Dataset is there, and says what it was.
    plain = labtree.load_item(target, "rec", "e")
    assert float(plain.ohm) == 50
    assert plain.attrs["labtree_kind"] == "electrode"


FORMAT = """
import xarray as xr

class Spikes:
    @staticmethod
    def recognizes(path):
        return path.suffix == ".spk"

    @staticmethod
    def open(path):
        counts = [int(word) for word in path.read_text().split()]
        return xr.DataTree(xr.Dataset({"counts": ("unit", counts)}))
"""


def test_a_package_that_is_installed_brings_its_formats(tmp_path):
    install(tmp_path, "spk", FORMAT, "spk:Spikes", "labtree.formats")
    (tmp_path / "day.spk").write_text("3 5")
    done = run(
        tmp_path,
        f"""
        import labtree
        print(labtree.open({str(tmp_path / "day.spk")!r})["counts"].values.tolist())
        """,
    )
    assert done.stdout.strip() == "[3, 5]", done.stderr
    with pytest.raises(ValueError, match=r"day\.spk is"):
        labtree.open(tmp_path / "day.spk")


def test_a_package_that_cannot_register_is_named_and_keeps_nobody_else(tmp_path):
    install(
        tmp_path, "broken", "def register():\n    raise RuntimeError('no')\n", "broken:register"
    )
    install(tmp_path, "electrodes", PACKAGE, "electrodes:register")
    done = run(
        tmp_path,
        """
        import labtree, electrodes
        tree = labtree.create_workspace()
        tree.ws.store("rec", "e", electrodes.Electrode(50.0))
        print(tree.ws.get_info("rec", "e")["type"])
        """,
    )
    assert done.stdout.strip() == "electrode", done.stderr
    assert "the kinds of broken:register" in done.stderr
