"""Import every module of labtree; an optional library that is missing is no reason to fail."""

import importlib
import pkgutil

import labtree

count = 0
for module in pkgutil.walk_packages(labtree.__path__, "labtree."):
    if module.name != "labtree.__main__":  # it runs the command line
        importlib.import_module(module.name)
        count += 1
for name in labtree.__all__:
    getattr(labtree, name)
print(f"{count} modules and {len(labtree.__all__)} public names")
