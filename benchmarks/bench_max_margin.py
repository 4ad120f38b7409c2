"""Max-margin solvers side by side: the closed form, the splitting method, CVXPY with Clarabel and SCS.

python benchmarks/bench_max_margin.py [--quick]

Every case runs in its own process, so that its peak memory can be measured, and every result is certified on
the full problem or on a provably equivalent one. Writes benchmarks/results/max_margin.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.theory.certificate import certify
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.reduction.symmetry import reduce_problem
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy
from ocr_interp.theory.solver.first_order import solve_first_order

RESULTS = Path(__file__).parent / "results" / "max_margin.json"
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def unequal_groups(n_facts: int, n_implications: int, largest: int, seed: int) -> FactRecallTask:
    """Random group sizes: 1..largest training and 0..largest held-out subjects per fact."""
    rng = np.random.default_rng(seed)
    extra = rng.integers(0, n_implications, n_facts - n_implications)
    implication = np.concatenate([np.arange(n_implications), extra])
    facts: list[int] = []
    trained: list[bool] = []
    for fact in range(n_facts):
        train, held_out = int(rng.integers(1, largest + 1)), int(rng.integers(0, largest + 1))
        facts += [fact] * (train + held_out)
        trained += [True] * train + [False] * held_out
    return FactRecallTask.from_mapping(facts, implication.tolist(), trained)


def make_task(case: dict[str, Any]) -> FactRecallTask:
    """The task of a case: balanced (n, m_train, m_test), or [facts, implications, largest group, seed]."""
    if case["family"] == "balanced":
        return FactRecallTask(*case["sizes"])
    return unequal_groups(*case["sizes"])


def closed_form(task: FactRecallTask, norm: str, case: dict[str, Any]) -> dict[str, Any]:
    repeats, solution = 20, solve(task, norm)
    start = time.perf_counter()
    for _ in range(repeats):
        solution = solve(task, norm)
        _ = (solution.objective, solution.rank, solution.cosines, solution.held_out_margin_overall)
    seconds = (time.perf_counter() - start) / repeats
    gap = solve(task, norm, 1e-9).certificate.gap if task.n_facts <= 1000 else None
    return {"seconds": seconds, "objective": solution.objective, "gap": gap}


def with_symmetry(task: FactRecallTask, norm: str, case: dict[str, Any]) -> dict[str, Any]:
    limit = case["limit"]
    solution = solve(
        task, norm, case["tolerance"], method="first_order", max_seconds=limit, margin_tolerance=None
    )
    reduced = reduce_problem(task)
    return {
        "seconds": solution.seconds,
        "objective": solution.objective,
        "gap": solution.certificate.gap,
        "iterations": solution.iterations,
        "constant_block": list(reduced.constant_shape),
        "pair_blocks": int((reduced.pair_multiplicity > 0).sum()),
    }


def without_merging(task: FactRecallTask, norm: str, case: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    reduced = reduce_problem(task, merge=False)
    found = solve_first_order(reduced, norm, case["tolerance"], case["limit"])
    return {
        "seconds": time.perf_counter() - start,
        "objective": found.primal,
        "gap": found.gap,
        "iterations": found.iterations,
        "constant_block": list(reduced.constant_shape),
    }


def cvxpy_full(task: FactRecallTask, norm: str, case: dict[str, Any]) -> dict[str, Any]:
    import cvxpy  # noqa: F401  the import's second is not the solver's

    problem = max_margin_problem(task)
    start = time.perf_counter()
    W, weights = solve_cvxpy(problem, norm, case["method"], case["limit"], case["tolerance"])
    seconds = time.perf_counter() - start
    certificate = certify(W, task, norm, weights)
    return {"seconds": seconds, "objective": certificate.primal, "gap": certificate.gap}


RUNNERS = {
    "closed_form": closed_form,
    "first_order": with_symmetry,
    "first_order_unmerged": without_merging,
    "clarabel": cvxpy_full,
    "scs": cvxpy_full,
}


def run_here(case: dict[str, Any]) -> dict[str, Any]:
    """Runs one case in this process; adds CPU time (more reliable on a busy machine) and peak memory.

    Peak memory includes the interpreter and libraries; CPU time of the closed form its 20 repeats and check.
    """
    task = make_task(case)
    start = time.process_time()
    result = RUNNERS[case["method"]](task, case["norm"], case)
    cpu_seconds = time.process_time() - start
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **result,
        "cpu_seconds": cpu_seconds,
        "peak_mb": kilobytes / (1024 if sys.platform != "darwin" else 1024**2),
    }


def run_apart(case: dict[str, Any]) -> dict[str, Any]:
    """Runs one case in its own process, on one thread; stops it at its time limit."""
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=case["limit"] + 20,
        )
    except subprocess.TimeoutExpired:
        return {**case, "failed": f"more than {case['limit']} s"}
    if done.returncode:
        return {
            **case,
            "failed": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else "killed",
        }
    return {**case, **json.loads(done.stdout)}


def side_by_side(quick: bool) -> list[dict[str, Any]]:
    """Balanced tasks (n, 1, 3); a method that fails is not tried at a larger n."""
    limit, case_tolerance = 10 if quick else 60, 1e-4
    sizes = (8, 16, 20) if quick else (8, 16, 20, 40, 80, 160)
    given_up: set[str] = set()
    results = []
    for n in sizes:
        for method in RUNNERS:
            if method in given_up:
                continue
            case = {"family": "balanced", "sizes": [n, 1, 3], "norm": "nuclear", "method": method}
            result = run_apart({**case, "limit": limit, "tolerance": case_tolerance / 2})
            if "failed" not in result and result["gap"] > 1.1 * case_tolerance:
                result["failed"] = f"stopped after {result['seconds']:.1f} s at a gap of {result['gap']:.1e}"
            if "failed" in result:
                given_up.add(method)
            results.append(report(result))
    return results


def at_scale(quick: bool) -> list[dict[str, Any]]:
    """The closed form at any n; unequal one-to-one groups; several facts per implication."""
    results = []
    for n in (20, 1_000, 1_000_000):
        case = {"family": "balanced", "sizes": [n, 1, 3], "norm": "nuclear", "method": "closed_form"}
        results.append(report(run_apart({**case, "limit": 60})))
    tasks = [[100, 100, 9, 0], [100, 60, 9, 0]] + ([] if quick else [[1000, 1000, 9, 0], [1000, 1000, 20, 0]])
    for sizes in tasks:
        for norm in ("nuclear", "frobenius", "spectral"):
            if sizes[2] == 20 and norm != "nuclear":
                continue
            case = {"family": "unequal", "sizes": sizes, "norm": norm, "method": "first_order"}
            limit = 120 if sizes[2] == 20 else 60
            results.append(report(run_apart({**case, "limit": limit, "tolerance": 1e-3})))
    for n in (25, 50) if quick else (25, 50, 150, 200):
        case = {
            "family": "unequal",
            "sizes": [n, 3 * n // 5, 9, 0],
            "norm": "nuclear",
            "method": "first_order",
        }
        results.append(report(run_apart({**case, "limit": 120, "tolerance": 1e-3})))
    return results


def report(result: dict[str, Any]) -> dict[str, Any]:
    """Prints a result as a row of the table."""
    name = f"{result['family']} {tuple(result['sizes'])}"
    if "failed" in result:
        print(f"{name:32} {result['norm']:10} {result['method']:22} {result['failed']}", flush=True)
        return result
    print(
        f"{name:32} {result['norm']:10} {result['method']:22}",
        f"{result['seconds']:10.4f} s {result['cpu_seconds']:8.2f} s",
        " " * 9 if result["gap"] is None else f"{result['gap']:9.1e}",
        f"{result['peak_mb']:7.0f} MB {result.get('iterations', ''):>7} {result['objective']:.6g}",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and short limits; writes no file")
    parser.add_argument("--case", help="one case as JSON, run in this process; prints its result as JSON")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_here(json.loads(options.case))))
        return
    columns = f"{'time':>12} {'CPU':>10} {'gap':>9} {'peak':>10} {'steps':>7} objective"
    print(f"{'task':32} {'norm':10} {'method':22} {columns}")
    results = side_by_side(options.quick) + at_scale(options.quick)
    if not options.quick:
        machine = {"python": platform.python_version(), "numpy": np.__version__, "threads": 1}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
