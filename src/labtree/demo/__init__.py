"""The grasshopper demonstration: real recordings to a saved workspace and a picture."""

import time
from pathlib import Path

__all__ = ["run"]


def run(folder: Path) -> Path:
    """Build, save, reopen and draw the demonstration's workspace; say what happens.

    Parameters
    ----------
    folder
        Where ``grasshopper.h5``, ``grasshopper.json`` and ``grasshopper.svg`` go; made
        where it is missing.

    Returns
    -------
    pathlib.Path
        The workspace file.
    """
    from labtree.demo.grasshopper import build_workspace
    from labtree.demo.picture import draw
    from labtree.workspace.workspace_files import load_item, open_workspace, save_workspace

    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    tree = build_workspace()
    _say("built", "a workspace from two recordings of grasshopper receptors", start)

    start = time.perf_counter()
    path = save_workspace(tree, folder / "grasshopper")
    _say(
        "saved",
        f"{path} ({path.stat().st_size / 1e6:.1f} MB), {path.with_suffix('.json').name}",
        start,
    )

    start = time.perf_counter()
    with open_workspace(path) as saved:
        _say("opened", "again; nothing is read before it is needed", start)
        print(f"\n{saved.ws!r}\n")
        picture = folder / "grasshopper.svg"
        picture.write_text(draw(saved), encoding="utf-8")

    start = time.perf_counter()
    trains = load_item(path, "C_grasshopper1_grasshopper2", "trains")
    _say("loaded", "one item of it, a DataFrame:", start)
    print(f"\n{trains.round(3).to_string()}\n")
    print(f"drew     {picture}\n")
    print(_NEXT.format(path=str(path)))
    return path


_NEXT = """What to type next, in Python:

    import labtree
    tree = labtree.open_workspace({path!r})
    tree                                      # browse it
    tree["grasshopper1/sta"].average          # an array, read when it is used
    tree.ws["grasshopper1", "settings"]       # an object, as it was stored
    tree.ws.store("mine", "answer", {{"n": 42}}, note="my first result")
    tree.ws.save()"""


def _say(verb: str, what: str, start: float) -> None:
    print(f"{verb:8} {what}  [{(time.perf_counter() - start) * 1000:.0f} ms]")
