"""Trees and tables under hostile names, for the tests of what they show."""

import numpy as np
import pandas as pd
import xarray as xr

import labtree
from labtree.msw import trials_to_frame
from labtree.recording.session import labels_to_dataset, stream_dataset
from labtree.testing.msw import make_trials

SCRIPT = "<script>document.title='taken'</script>&\"'><img src=x onerror=\"document.title=1\">"
HOSTILE = {
    "script": SCRIPT,
    "closing": "</td></table></details></div></style><script>document.title=2</script>",
    "quotes": "\"'`><b onmouseover=alert(1)>",
    "long": "long" * 2500,
    "right to left": "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "lines": "one\ntwo\r\nthree\u2028four\tfive\x07",
}


def workspace():
    tree = labtree.create_workspace(SCRIPT)
    for what, name in HOSTILE.items():
        tree.ws.store(name, "rates", np.zeros((2, 3)), note=name)
        tree.ws.store(name, name, xr.Dataset({name: ("t", [1.0])}), note=what)
    tree.attrs["labtree_created_at"] -= 3 * 86400 + 5
    return tree


def recording(names=None):
    """Give a recording's tree whose streams, units, channels and classes are called so."""
    names = list(HOSTILE.values()) if names is None else names
    streams = {}
    for name in names:
        dataset = stream_dataset(
            np.zeros((100, 2), np.int16),
            np.arange(100) / 50,
            fs=50.0,
            channel_names=[name, "b"],
            units=name,
        )
        streams[name.replace("/", "")] = dataset
    labels = labels_to_dataset([(0.5, 0), (1.0, 1)], names)
    tree = xr.DataTree(
        xr.Dataset(
            attrs={
                "session_path": names[0],
                "name": names[-1],
                "created": "2020-01-01T10:00:00",
                "class_names": names,
                "repairs": names,
            }
        )
    )
    tree.children = {
        "streams": xr.DataTree(children={n: xr.DataTree(d) for n, d in streams.items()}),
        "labels": xr.DataTree(labels),
    }
    return tree


def pipeline():
    session = labtree.create_session("rec1")
    names = list(HOSTILE.values())
    session.session.add_units(
        {
            f"unit {i}": {"spike_times": np.array([1, 2]), "label": n}
            for i, n in enumerate(names)
        }
    )
    for name in names:
        if "/" not in name:
            session.session.add_feature("unit 0", name, np.zeros(3))
    session.attrs["dataset_id"] = SCRIPT
    session.attrs["completed_steps"] = names
    session.attrs["steps"] = [{"name": n, "parameters": {n: n}} for n in names]
    session.attrs["warnings"] = names
    return session


def trials():
    frame = trials_to_frame(make_trials(40))
    for name in HOSTILE.values():
        frame[name] = name
    return frame[[*HOSTILE.values(), *frame.columns[: -len(HOSTILE)]]]


def bare():
    return pd.DataFrame({name: [1] for name in HOSTILE.values()})


def pages():
    """Give every display by a name, each as (repr, HTML)."""
    tree = recording()
    shown = {
        "workspace": workspace().ws,
        "recording": tree.session,
        "stream": next(iter(tree["streams"].children.values())).to_dataset().session,
        "dataset": xr.Dataset({SCRIPT: ("t", [1.0])}, {"t": [0.0]}).ws,
        "pipeline": pipeline().session,
        "trials": trials().msw,
        "bare": bare().msw,
        "nothing": xr.DataTree().session,
    }
    return {name: (repr(each), each._repr_html_()) for name, each in shown.items()}


def without_xarrays_own(page):
    """Take off the page that xarray makes of an object, which stands before the methods."""
    own, is_there, rest = page.partition('<div class="whole">')
    return own + rest[rest.rindex("</div><details") + 6 :] if is_there else page
