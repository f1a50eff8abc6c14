"""The engine ``labtree`` of xarray."""

import pickle
import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.interop.xarray_engine import LabtreeBackendEntrypoint
from labtree.testing.recordings import record_emg

ENGINE = LabtreeBackendEntrypoint


@pytest.fixture
def path(tmp_path):
    tree = labtree.create_workspace("study")
    rates = xr.Dataset(
        {"rate": (("unit", "time"), np.arange(12.0).reshape(3, 4))},
        {"time": [0.0, 1.0, 2.0, 3.0], "phase": ("time", np.array([1j, 2, 3, 4]))},
    )
    tree.ws.store("rec1", "rates", rates)
    tree.ws.store("rec1", "days", np.array(["2020-01-01"], "M8[D]"))
    return tree.ws.save(tmp_path / "study")


def test_datatree_is_lazy_whole_and_closes(path):
    with xr.open_datatree(path, engine=ENGINE) as tree:
        assert tree.ws["rec1", "days"].dtype == "M8[D]"
        assert tree["rec1/rates"].rate.sel(time=2).values.tolist() == [2, 6, 10]
        assert tree["rec1/rates"].phase.dtype == complex
        rate = tree["rec1/rates"].rate
    with pytest.raises(ValueError, match="was closed"):
        rate.values  # noqa: B018


def test_groups_and_one_dataset(path):
    groups = ENGINE().open_groups_as_dict(path)
    assert list(groups) == ["/", "/rec1", "/rec1/rates", "/rec1/days"]
    below = xr.open_datatree(path, engine=ENGINE, group="/rec1")
    assert list(below.children) == ["rates", "days"]
    below.close()
    with xr.open_dataset(path, engine=ENGINE, group="rec1/rates") as dataset:
        assert dataset.rate.sum().item() == 66
    with xr.open_dataset(
        path, engine=ENGINE, group="rec1/rates", drop_variables="phase"
    ) as dataset:
        assert "phase" not in dataset.variables
    with pytest.raises(KeyError, match=r"no group 'rec9'; there are: '/', '/rec1',"):
        xr.open_dataset(path, engine=ENGINE, group="rec9")


def test_dask_and_pickle(path):
    with xr.open_dataset(
        path, engine=ENGINE, group="rec1/rates", chunks={"unit": 1}
    ) as dataset:
        assert dataset.rate.chunks == ((1, 1, 1), (4,))
        assert dataset.rate.mean("time").compute().values.tolist() == [1.5, 5.5, 9.5]
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy.rate.values.tolist() == dataset.rate.values.tolist()


def test_guesses_what_no_other_engine_claims(tmp_path, path):
    folder = record_emg(tmp_path / "sessions")
    assert ENGINE().guess_can_open(folder)
    assert ENGINE().guess_can_open("somewhere/x.session.zip")
    assert not ENGINE().guess_can_open(path)
    assert not ENGINE().guess_can_open(tmp_path)
    assert not ENGINE().guess_can_open(b"bytes")
    with xr.open_dataset(folder, engine=ENGINE, group="streams/emg") as dataset:
        assert dataset.data.dims == ("time", "channel")


@pytest.mark.usefixtures("nothing_is_collected")
@pytest.mark.parametrize(
    "content", ['{"a": 1}', '{"streams": {"a": 1}}', "[1]", "", '{"streams": ', "[" * 100_000]
)
def test_a_folder_with_another_programs_meta_json_is_not_claimed(tmp_path, content):
    (tmp_path / "meta.json").write_text(content)
    assert not ENGINE().guess_can_open(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.session.zip", "w") as archive:
        archive.writestr("meta.json", content)
    assert not ENGINE().guess_can_open(tmp_path / "x.session.zip")


def test_what_is_no_zip_is_not_claimed(tmp_path):
    (tmp_path / "x.session.zip").write_text("no zip")
    assert not ENGINE().guess_can_open(tmp_path / "x.session.zip")


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "packed.nc"
    dataset = xr.Dataset(
        {"v": ("time", [1.0, 2.5, np.nan])}, {"time": np.array(["2020-01-01"] * 3, "M8[ns]")}
    )
    dataset.to_netcdf(
        path, encoding={"v": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}}
    )
    return path


@pytest.mark.parametrize(
    "decoding",
    [
        {"mask_and_scale": False},
        {"decode_times": False},
        {"decode_timedelta": False, "concat_characters": False, "decode_coords": False},
        {"decode_times": xr.coders.CFDatetimeCoder(time_unit="s")},
        {"mask_and_scale": False, "drop_variables": ["time"]},
    ],
    ids=lambda decoding: "-".join(decoding),
)
def test_decoding_is_xarrays_own(packed, decoding):
    with (
        xr.open_dataset(packed, engine="h5netcdf", **decoding) as expected,
        xr.open_dataset(packed, engine=ENGINE, **decoding) as found,
        xr.open_datatree(packed, engine=ENGINE, **decoding) as tree,
    ):
        for dataset in (found, tree.to_dataset()):
            xr.testing.assert_identical(dataset.load(), expected.load())
            for name, variable in expected.variables.items():
                assert dataset[name].dtype == variable.dtype


def test_labtrees_own_files_are_decoded_already(path):
    with xr.open_dataset(path, engine=ENGINE, decode_times=True) as dataset:
        assert dataset.attrs
    with pytest.raises(
        labtree.DataError, match=r"is a labtree workspace, .* without decode_times, or with"
    ):
        xr.open_dataset(path, engine=ENGINE, decode_times=False)


@pytest.mark.parametrize("decoding", [{}, {"decode_times": False}])
def test_damaged_files_give_labtrees_errors(path, packed, tmp_path, decoding):
    errors = []
    random = np.random.default_rng(0)
    for source in (path, packed):
        content = source.read_bytes()
        for attempt in range(40):
            damaged = bytearray(content)
            at = int(random.integers(len(damaged)))
            damaged[at] ^= 1 << int(random.integers(8))
            broken = tmp_path / f"{attempt}.h5"
            broken.write_bytes(damaged if attempt % 2 else content[:at])
            try:
                with (
                    warnings.catch_warnings(),
                    xr.open_datatree(broken, engine=ENGINE, **decoding),
                ):
                    warnings.simplefilter("ignore")
            except labtree.LabtreeError as error:
                errors.append((broken.name, str(error)))
    assert errors
    assert [message for name, message in errors if name not in message] == []


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(labtree.MissingFileError):
        xr.open_dataset(tmp_path / "none.h5", engine=ENGINE)


def test_only_paths_are_opened(path):
    with path.open("rb") as file, pytest.raises(TypeError, match="opens paths, not"):
        xr.open_dataset(file, engine=ENGINE)


def test_the_entry_point_is_registered():
    from importlib.metadata import distribution

    points = distribution("labtree").entry_points.select(group="xarray.backends")
    assert [point.value for point in points] == [
        "labtree.interop.xarray_engine:LabtreeBackendEntrypoint"
    ]
