"""Names: every edge of the older tools' table, with what is better here; and inverses."""

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labtree.errors import FormatError
from labtree.msw import (
    generate_session_paths,
    identify_namespace_version,
    make_acquisition_basename,
    make_container_name,
    make_file_name,
    make_subject,
    parse_acquisition_basename,
    parse_container_name,
    parse_file_name,
    parse_session_basename,
    parse_subject,
)
from labtree.msw.session_names import ACQUISITION_TYPES, parse_datetime

DT = "20260514_143022_123456"
OLD = "20260514_143022"

tokens = st.from_regex(r"\A[A-Za-z0-9]{1,8}([_-][A-Za-z0-9]{1,5}){0,2}\Z")
moments = st.datetimes(datetime(1900, 1, 1), datetime(2999, 1, 1))
stamps = moments.map(lambda m: m.strftime("%Y%m%d_%H%M%S_%f"))
old_stamps = moments.map(lambda m: m.strftime("%Y%m%d_%H%M%S"))


def test_a_session_name_of_each_precision() -> None:
    assert parse_session_basename(f"m01__{DT}__gonogo") == {
        "subject": "m01",
        "datetime": datetime(2026, 5, 14, 14, 30, 22, 123456),
        "datetime_str": DT,
        "task": "gonogo",
        "namespace_version": "v1",
    }
    old = parse_session_basename(f"m01__{OLD}__gonogo")
    assert old["datetime"] == datetime(2026, 5, 14, 14, 30, 22)
    assert old["namespace_version"] == "legacy"
    # Without a task, the type is what the session is called by.
    assert parse_session_basename(f"m01__{DT}__pxi")["task"] == "pxi"


@pytest.mark.parametrize("acq_type", ACQUISITION_TYPES)
@pytest.mark.parametrize("version", [None, 0, 1, 12])
def test_current_names(acq_type: str, version: int | None) -> None:
    name = make_acquisition_basename("m01", DT, "gonogo", acq_type, version)
    parts = parse_acquisition_basename(name)
    assert parts["acq_type"] == acq_type
    assert parts["acq_version"] == version
    assert parts["task"] == "gonogo"
    assert not parts["is_legacy_acquisition"]


def test_a_task_may_have_double_underscores_and_so_may_a_subject() -> None:
    # As before: such names exist on disk.
    assert parse_session_basename(f"s__{DT}__a__b")["task"] == "a__b"
    assert parse_session_basename(f"s__x__{DT}__t")["subject"] == "s__x"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"s__{DT}", "nothing, after the datetime"),
        # Was a task of "", reported as "msw".
        (f"s__{DT}__", "empty part"),
        # Was a subject of "".
        (f"{DT}__t", "no subject"),
        ("s__20261314_143022__t", "no such moment"),
        ("s__20260514_253022__t", "no such moment"),
        # Were accepted as datetimes.
        ("s__20260514_143022_1234__t", "no datetime"),
        ("s__2026514_143022__t", "no datetime"),
        ("s__２０２６０５１４_143022__t", "no datetime"),
        # Was a task of None in version 1.
        (f"s__{DT}__v1", "neither a type nor a task"),
        # Was accepted, and led out of the folder.
        (f"s__{DT}__../../etc", "word characters"),
        (f"s__{DT}__msw__t__v1__v2", "2 versions"),
        (f"s__{DT}__t.msw.jsonl", "parse_file_name"),
        ("", "word characters"),
        ("..", "word characters"),
        (f"s__{DT}__t\n", "word characters"),
        (f"s__{DT}__t\0", "word characters"),
        ("nothing", "no datetime"),
    ],
)
def test_refused_names(name: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        parse_session_basename(name)
    with pytest.raises(ValueError, match=told):
        parse_acquisition_basename(name)


@pytest.mark.parametrize("task", ["video_flir_top", "MSW"])
def test_what_looks_like_a_type_is_a_task_and_says_so(task: str) -> None:
    # As before, because the name cannot tell; but it is marked as the older kind.
    parts = parse_acquisition_basename(f"s__{DT}__{task}")
    assert (parts["acq_type"], parts["task"]) == ("msw", task)
    assert parts["is_legacy_acquisition"]


def test_not_a_string() -> None:
    with pytest.raises(FormatError, match="None"):
        parse_session_basename(None)  # type: ignore[arg-type]


@given(tokens, stamps | old_stamps, tokens, st.sampled_from(ACQUISITION_TYPES), st.booleans())
def test_acquisition_names_are_inverse(
    subject: str, stamp: str, task: str, acq_type: str, legacy: bool
) -> None:
    if legacy:
        acq_type = "msw"
    try:
        name = make_acquisition_basename(
            subject, stamp, task, acq_type, None if legacy else 3, is_legacy_acquisition=legacy
        )
    except FormatError:
        # Only what means something else may be refused.
        special = {*ACQUISITION_TYPES} if legacy else set()
        assert task in special or task[:1] == "v" or subject[:8].isdigit()
        return
    parts = parse_acquisition_basename(name)
    assert (parts["subject"], parts["datetime_str"], parts["task"]) == (subject, stamp, task)
    assert parts["acq_type"] == acq_type
    again = make_acquisition_basename(
        parts["subject"],
        parts["datetime_str"],
        parts["task"],
        parts["acq_type"],
        parts["acq_version"],
        is_legacy_acquisition=parts["is_legacy_acquisition"],
    )
    assert again == name


@given(st.text(max_size=40) | st.from_regex(rf"\A\w{{0,4}}__{DT}__[\w./-]{{0,9}}\Z"))
def test_any_text_is_refused_or_safe(name: str) -> None:
    try:
        parts = parse_acquisition_basename(name)
    except FormatError:
        return
    assert Path("base", name).resolve().parent == Path("base").resolve()
    assert parts["subject"]


@given(tokens, stamps | old_stamps, tokens)
def test_container_names_are_inverse(subject: str, stamp: str, word: str) -> None:
    cases = [(None, "", word), (subject, "", word), (subject, word, None), (subject, "", None)]
    for owner, session_type, task in cases:
        try:
            name = make_container_name(owner, stamp, session_type, task)
        except FormatError:
            assert subject == "session" or word.startswith("session_") or "__" in word
            continue
        parts = parse_container_name(name)
        found = (parts["subject"], parts["session_type"], parts["task"])
        assert found == (owner, session_type, task)
        assert parts["datetime_str"] == stamp


def test_containers_of_each_era() -> None:
    page = parse_container_name(f"session__{DT}__session_gonogo")
    assert (page["subject"], page["task"], page["session_type"]) == (None, "gonogo", "")
    early = parse_container_name(f"m01__{OLD}__session_gonogo")
    assert (early["subject"], early["task"], early["session_type"]) == ("m01", "gonogo", "")
    assert early["namespace_version"] == "legacy"
    current = parse_container_name(f"m01__{DT}__training")
    assert (current["task"], current["session_type"]) == (None, "training")
    for bad in ("m01", f"m01__{DT}/..", f"__{DT}", f"m01__{DT}__a b"):
        with pytest.raises(FormatError, match="container"):
            parse_container_name(bad)


@given(tokens, st.from_regex(r"\A[a-z]{1,6}(\.[a-z]{1,6}){0,2}\Z"))
def test_file_names_are_inverse(acquisition: str, artifact: str) -> None:
    try:
        name = make_file_name(acquisition, artifact)
    except FormatError:
        assert ".msw." in f".{artifact}."
        return
    assert parse_file_name(name) == {"acquisition": acquisition, "artifact": artifact}


def test_the_last_msw_splits_a_file_name() -> None:
    assert parse_file_name("a.msw.b.msw.df.jsonl") == {
        "acquisition": "a.msw.b",
        "artifact": "df.jsonl",
    }
    for bad in ("a.jsonl", "../a.msw.jsonl", "a.msw.", ".msw.jsonl", "a.msw.../b"):
        with pytest.raises(FormatError):
            parse_file_name(bad)


@given(
    st.from_regex(r"\A[a-z]{1,4}[0-9]{1,3}\Z"),
    st.from_regex(r"\A[a-z][0-9]{1,2}\Z"),
    st.lists(st.from_regex(r"\A[a-zA-Z0-9]{1,4}\Z"), max_size=3),
)
def test_subjects_are_inverse(subject: str, animal: str, fields: list[str]) -> None:
    parts = parse_subject(make_subject(subject, animal, *fields))
    assert parts == {
        "subject_id": subject,
        "animal_id": animal,
        "tag_id": fields[0] if fields else None,
        "fields": fields,
    }


def test_refused_subjects() -> None:
    for bad in ("m01", "m_a1", "m01_a", "m01_a1_", "m01_a1_µ"):
        with pytest.raises(FormatError):
            parse_subject(bad)
    with pytest.raises(FormatError):
        make_subject("m01", "a1", "x_y")


def test_namespace_versions() -> None:
    assert identify_namespace_version(f"m__{DT}__msw__t__v1") == ("4.2", "inferred")
    assert identify_namespace_version(f"m__{OLD}__t") == ("legacy", "inferred")
    assert identify_namespace_version(f"m__{DT}__t") == ("4.1", "inferred")
    assert identify_namespace_version("?") == ("unknown", "inferred")
    stamped = {"namespace_version": "4.3"}
    assert identify_namespace_version("?", stamped) == ("4.3", "metadata")
    manifest = {"msw_namespace_version": "4.0"}
    assert identify_namespace_version("?", {}, manifest) == ("4.0", "metadata")


# --- paths ------------------------------------------------------------------------------


def test_paths_by_the_page() -> None:
    paths = generate_session_paths("m01", "gonogo", "/data", datetime_str=DT)
    container = f"session__{DT}__session_gonogo"
    name = f"m01__{DT}__gonogo"
    assert paths["session_folder"] == Path("/data", "m01", container, name)
    assert paths["session_file_path"] == Path("/data", "m01", container, name, name)
    assert paths["session_folder_relative"].as_posix() == f"m01/{container}/{name}"
    assert paths["namespace_version"] == "v1"
    assert paths["host_session_name"] == container
    assert paths["acquisition_name"] == paths["session_basename"] == name


def test_paths_of_today() -> None:
    paths = generate_session_paths(
        "m01", "gonogo", "/data", layout="2026", session_type="training", datetime_str=DT
    )
    assert paths["session_folder"] == Path(
        "/data", "m01", f"m01__{DT}__training", f"m01__{DT}__msw__gonogo__v1"
    )
    # Only the type msw has its task in the name.
    paths = generate_session_paths("m01", "t", "/d", layout="2026", acq_type="pxi")
    assert paths["session_basename"].endswith("__pxi__v1")


def test_now_has_microseconds() -> None:
    before = datetime.now()
    paths = generate_session_paths("m01", "gonogo", "x")
    assert before <= paths["datetime"] <= datetime.now()
    assert parse_datetime(paths["datetime_str"]) == (paths["datetime"], "v1")


@pytest.mark.parametrize("layout", ["2025", "2026"])
@pytest.mark.parametrize("task", ["_test_gonogo", "_test__gonogo"])
def test_test_tasks_go_to_the_test_subject(layout: str, task: str) -> None:
    paths = generate_session_paths("m01", task, "x", layout=layout)  # type: ignore[arg-type]
    assert paths["subject"] == "_test_subject"
    parsed = parse_session_basename(paths["session_basename"])
    assert parsed["subject"] == "_test_subject"
    assert parsed["task"] == (task if layout == "2025" else "msw")


def test_linked_to_a_container() -> None:
    paths = generate_session_paths(
        "m01", "t", "x", layout="2026", linked_to=f"m01__{OLD}", datetime_str=DT
    )
    assert paths["session_folder"].parent.name == f"m01__{OLD}"
    for bad in (f"m02__{OLD}", "../m01", f"m01__{OLD}/..", "a"):
        with pytest.raises(FormatError):
            generate_session_paths("m01", "t", "x", layout="2026", linked_to=bad)


HOSTILE = [
    "../../etc",
    "a/b",
    "a\\b",
    ".",
    "..",
    "",
    "a\n",
    "µ",
    "a b",
    "a__b",
    "m1_",
    "-a",
    "a\0",
    "C:",
    "a.b",
    None,
    7,
    "CON!",
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_what_could_leave_or_not_parse_back_is_refused(bad: object) -> None:
    for change in ("subject", "task", "session_type", "linked_to", "datetime_str", "acq_type"):
        if change == "session_type" and bad in ("", None):
            continue
        if change in ("linked_to", "datetime_str") and bad is None:
            continue
        call = {"subject": "m01", "task": "t", "basepath": "/data", "layout": "2026"}
        call[change] = bad  # type: ignore[assignment]
        with pytest.raises(FormatError):
            generate_session_paths(**call)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["v2", "msw", "pxi", "video_flir"])
def test_tasks_that_mean_something_else_are_refused(task: str) -> None:
    with pytest.raises(FormatError):
        generate_session_paths("m01", task, "x")


def test_other_refusals() -> None:
    for version in ("x", -1, True, 1.0):
        with pytest.raises(FormatError, match="whole number"):
            generate_session_paths(
                "m",
                "t",
                "x",
                layout="2026",
                acq_version=version,  # type: ignore[arg-type]
            )
    with pytest.raises(FormatError, match="write '20260514_143022_000000'"):
        generate_session_paths("m", "t", "x", datetime_str=OLD)
    with pytest.raises(FormatError, match="layout='2026'"):
        generate_session_paths("m", "t", "x", acq_type="pxi")
    with pytest.raises(FormatError, match="'2025' or '2026'"):
        generate_session_paths("m", "t", "x", layout="old")  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        generate_session_paths("session", "t", "x", layout="2026", session_type="session_t")


@given(st.text(max_size=12) | tokens, st.text(max_size=12) | tokens, stamps)
def test_generated_paths_stay_below_and_parse_back(subject: str, task: str, stamp: str) -> None:
    for layout in ("2025", "2026"):
        try:
            paths = generate_session_paths(
                subject,
                task,
                "/data",
                layout=layout,  # type: ignore[arg-type]
                datetime_str=stamp,
            )
        except FormatError:
            continue
        folder = paths["session_folder"]
        assert folder.resolve().parent.parent.parent == Path("/data").resolve()
        parsed = parse_session_basename(folder.name)
        if not task.startswith("_test"):
            assert (parsed["subject"], parsed["task"]) == (subject, task)
        assert parsed["datetime_str"] == stamp
        parse_container_name(folder.parent.name)
