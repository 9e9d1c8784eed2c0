"""Imports point down only."""

import ast
from pathlib import Path

import pytest

import sklearn_nsgf

ROOT = Path(sklearn_nsgf.__file__).parent
# A module may import modules of its own layer or of those before it.
LAYERS = [
    ["_torch", "_sklearn", "_version", "_warn", "_frames", "_verbose", "_documentation", "_types"],
    ["flow._anderson", "flow._memory"],
    ["flow._plan"],
    ["flow._groups"],
    ["flow._problem"],
    ["flow._particles"],
    ["flow._sinkhorn", "flow._ode", "flow._path", "flow._samplers"],
    ["flow._trajectory", "flow._coupling"],
    ["flow._blocks"],
    ["flow._pool"],
    ["flow"],
    ["networks._embedding"],
    ["networks._mlp", "networks._unet", "networks._time_predictor"],
    ["networks._factory"],
    ["networks", "domains"],
    ["metrics"],
    ["_data", "_data.layout", "_data.labels"],
    ["_data.rows"],
    ["_data.moments", "_data.charts"],
    ["_data.clusters", "_data.noise"],
    ["_data.frame"],
    ["_data.choice"],
    ["_data.table"],
    ["_data.space", "_data.outliers", "_data.chunks"],
    ["_data.check"],
    ["_model", "_model.leg", "_model.reservoir"],
    ["_model.model"],
    ["_learning", "_learning.processes", "_learning.strata", "_learning.tasks", "_learning.checkpoint"],
    ["_learning.held_out"],
    ["_learning.training"],
    ["_learning.paths", "_learning.two_phases", "_learning.folds"],
    ["_learning.learn"],
    ["_parameters", "_transport"],
    ["_base"],
    ["_sinkhorn_flow", "_flow_matching"],
    ["_nsgf_plus_plus", "inspection"],
    ["", "__main__"],
]
LEVELS = {module: level for level, layer in enumerate(LAYERS) for module in layer}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_its_layer():
    assert set(MODULES) == set(LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for name in imported_modules(MODULES[module]):
        if name.startswith("sklearn_nsgf"):
            imported = name.removeprefix("sklearn_nsgf").removeprefix(".")
            assert LEVELS[imported] <= LEVELS[module], f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith(("flow", "networks"))])
def test_the_numerical_core_knows_no_scikit_learn(module):
    assert not any(
        name.startswith("sklearn.") or name == "sklearn" for name in imported_modules(MODULES[module])
    )
