"""Importing the package does nothing; every public name can be imported."""

import json
import os
import subprocess
import sys

import pytest

import sidrec

HEAVY = ("torch", "transformers", "polars", "numpy", "pydantic", "sklearn")


def test_importing_the_package_loads_nothing_and_changes_nothing() -> None:
    code = f"""
import json, os, sys, logging, warnings
before = dict(os.environ), len(logging.root.handlers), list(warnings.filters), list(sys.argv)
import sidrec
after = dict(os.environ), len(logging.root.handlers), list(warnings.filters), list(sys.argv)
print(json.dumps([before == after, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert json.loads(done.stdout) == [True, []]


@pytest.mark.parametrize("name", sorted(set(sidrec.__all__) - {"__version__"}))
def test_public_names_are_there(name: str) -> None:
    found = getattr(sidrec, name)
    assert found.__name__ == name
    assert found.__doc__


def test_public_names_are_listed_and_wrong_ones_refused() -> None:
    assert set(sidrec.__all__) <= set(dir(sidrec))
    with pytest.raises(AttributeError, match="no attribute 'Datasett'"):
        _ = sidrec.Datasett


@pytest.mark.parametrize(
    "module", ["sidrec.data.dataset", "sidrec.tokenizers.semantic_ids", "sidrec.evaluation.ranking"]
)
def test_data_and_metrics_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'transformers', 'sklearn') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
