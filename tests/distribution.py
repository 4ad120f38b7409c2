"""Builds the wheel and the source distribution and tries them in empty environments.

`make dist-test` does it on every Python of 3.11 to 3.13 that the machine has, from a folder outside of the
checkout; `--oldest` takes constraints-oldest.txt, the smallest versions that pyproject.toml allows. Not part
of the test suite: it installs a gigabyte of dependencies.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
SMOKE = """
import sys
import tempfile
from pathlib import Path

import ocr_interp
from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, certify, load_run, solve, train

assert Path(sys.argv[1]) not in Path(ocr_interp.__file__).parents, "this is the checkout"
assert (Path(ocr_interp.__file__).parent / "py.typed").is_file()
task = FactRecallTask(n_pairs=3, m_train=1, m_test=2)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "run"
    run = train(task, ModelConfig(d_head=8), TrainConfig(steps=20, batch_size=12, device="cpu"), path)
    assert load_run(path).status == "finished"
    assert type(run.model).__name__ == "HookedTransformer"
assert abs(solve(task).beta - 0.5**0.5) < 1e-6
assert certify(solve(task).W, task, refine=True).gap < 0.01
print("trained, solved, certified with", ocr_interp.__version__)
"""


def pythons() -> dict[str, Path]:
    """Version -> interpreter, of those that this machine has on its path or under pyenv."""
    found = {}
    for version in VERSIONS:
        under = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        named = shutil.which(f"python{version}", path=os.defpath + ":/usr/local/bin")
        if named or under:
            found[version] = Path(named or under[-1])
    return found


def run(*command: str | Path, folder: Path) -> str:
    """Output of a command; a failure ends the program with what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def built(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution, made from a clean copy of what git tracks."""
    clean = folder / "source"
    clean.mkdir()
    run("git", "archive", "--output", folder / "tracked.tar", "HEAD", folder=ROOT)
    with tarfile.open(folder / "tracked.tar") as archive:
        archive.extractall(clean, filter="data")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder=clean)
    (wheel,), (source,) = ((folder / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    return wheel, source


def check_contents(wheel: Path, source: Path) -> None:
    """Stubs, py.typed and the pages of reports are in both; tests and results are not in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    with tarfile.open(source) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", "ocr_interp", folder=ROOT).split()
    for place, of_place in (("wheel", names), ("source distribution", sources)):
        missing = [name for name in tracked if name not in of_place]
        if missing:
            raise SystemExit(f"the {place} lacks {', '.join(missing)}: name them in pyproject's package-data")
    strangers = {name.split("/")[0] for name in names} - {"ocr_interp"}
    if any(not name.endswith(".dist-info") for name in strangers):
        raise SystemExit(f"the wheel holds {', '.join(sorted(strangers))} beside the package")


def tried(python: Path, package: Path, constraints: Path, folder: Path) -> str:
    """What the smoke test printed in an empty environment with the package and the given versions."""
    environment = folder / "environment"
    run(python, "-m", "venv", environment, folder=folder)
    inside = environment / "bin"
    run(
        inside / "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        constraints,
        package,
        folder=folder,
    )
    outside = folder / "elsewhere"
    outside.mkdir()
    said = run(inside / "python", "-c", SMOKE, ROOT, folder=outside)
    helped = run(inside / "ocr-interp", "--help", folder=outside)
    if "train" not in helped:
        raise SystemExit(f"ocr-interp --help does not name its commands:\n{helped}")
    shutil.rmtree(environment)
    return said.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oldest", action="store_true", help="the smallest versions that are supported")
    parser.add_argument("--only", choices=VERSIONS, help="one version of Python")
    arguments = parser.parse_args()
    constraints = ROOT / ("constraints-oldest.txt" if arguments.oldest else "constraints.txt")
    found = pythons()
    wanted = [arguments.only] if arguments.only else (VERSIONS[:1] if arguments.oldest else VERSIONS)
    with tempfile.TemporaryDirectory() as temporary:
        wheel, source = built(Path(temporary))
        check_contents(wheel, source)
        print(f"built {wheel.name} and {source.name}", flush=True)
        for version in wanted:
            if version not in found:
                print(f"Python {version}: not on this machine, not tried", flush=True)
                continue
            for package in (wheel, source) if version == VERSIONS[0] else (wheel,):
                began, folder = time.perf_counter(), Path(tempfile.mkdtemp(dir=temporary))
                said = tried(found[version], package, constraints, folder)
                seconds = time.perf_counter() - began
                print(f"Python {version}, {package.name}: {said} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
