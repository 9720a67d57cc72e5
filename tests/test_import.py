"""``import unmix`` is cheap: other libraries are loaded by the first use of a name, and every name is still there."""

import ast
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unmix

HEAVY = {"torch", "sklearn", "pandas", "scipy", "matplotlib", "numpy"}


def loaded(code):
    """The top-level modules that are loaded when ``code`` has run in a new interpreter."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stderr.split())


def test_import_loads_no_other_library():
    assert not loaded("import unmix; assert 'CGVAE' in dir(unmix)") & HEAVY


def test_help_and_version_load_no_other_library():
    for words in (["--help"], ["fit", "--help"], ["--version"]):
        code = f"import sys; sys.argv[1:] = {words}\nfrom unmix.cli import main\ntry: main()\nexcept SystemExit: pass"
        assert not loaded(code) & HEAVY


@pytest.mark.slow
def test_metrics_datasets_and_theory_load_no_torch():
    use = "import unmix; unmix.metrics.mcc; unmix.datasets.make_sparse_mixing; unmix.theory.domains_needed"
    assert "torch" not in loaded(use)


def test_every_public_name_is_what_type_checkers_see():
    tree = ast.parse(Path(unmix.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    here = {"DataWarning", "UnmixError", "__version__"}
    assert set(unmix.__all__) == {*seen, *here}
    for name, module in seen.items():
        found = getattr(unmix, name)
        assert found is (getattr(sys.modules[module], name) if module != "unmix" else sys.modules[f"unmix.{name}"])
        assert name in dir(unmix)


def test_star_import_and_pickle():
    space = {}
    exec("from unmix import *", space)
    assert set(unmix.__all__) <= set(space)
    model = pickle.loads(pickle.dumps(unmix.CGVAE(n_latents=3)))
    assert type(model) is space["CGVAE"]
    assert model.n_latents == 3


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'unmix' has no attribute 'CGVEA'"):
        _ = unmix.CGVEA
    with pytest.raises(ImportError, match="cannot import name 'CGVEA'"):
        exec("from unmix import CGVEA")


def test_classes_inherit_two_steps_at_most():
    names = {found.name for found in pkgutil.walk_packages(unmix.__path__, "unmix.")} - {"unmix.__main__"}
    kinds = {own for name in names for own in vars(importlib.import_module(name)).values() if isinstance(own, type)}
    assert not [own for own in kinds if steps_of(own) > 2]


def steps_of(kind):
    """Steps of inheritance within unmix, from ``kind`` to the class that has no base there."""
    return max((1 + steps_of(base) for base in kind.__bases__ if base.__module__.startswith("unmix.")), default=0)


def test_public_signatures_name_their_types():
    """Arguments that are passed on to another function are the only ones of any type."""
    spaces = [unmix, unmix.baselines, unmix.images, unmix.metrics, unmix.datasets, unmix.theory]
    found = [own for space in spaces for own in public(space)]
    found += [own for kind in found if isinstance(kind, type) for own in public(kind)]
    for own in filter(inspect.isfunction, found):
        signature = inspect.signature(own)
        named = [p.annotation for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        assert not re.search(r"\bAny\b", f"{named} {signature.return_annotation}"), own


def public(space):
    """Functions and classes of unmix in a module or class."""
    own = [getattr(space, name) for name in dir(space) if not name.startswith("_")]
    return [found for found in own if str(getattr(found, "__module__", "")).startswith("unmix.")]
