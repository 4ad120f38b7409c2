"""Every public plot function draws on the axes it gets and returns them; its example runs."""

import copy
import dataclasses
import doctest
import importlib
import inspect
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from transformer_lens import HookedTransformer, HookedTransformerConfig

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, attribute, solve, sweep, train, viz
from ocr_interp.ablation import AblationStudy, Site, Zero, run_ablation_study
from ocr_interp.circuits import composition, direct_attribution
from ocr_interp.comparison import compare_models
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.graphs import mechanism_graph
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.storage.notebooks import html_table
from ocr_interp.viz.style import HELD_OUT, Style

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
RECIPE = TrainConfig(steps=20, batch_size=12, log_every=5, device="cpu")
PLOTS = sorted(name for name in viz.__all__ if name.startswith("plot_"))
SOLID = ("plot_pair_geometry",)


@pytest.fixture(scope="module")
def run():
    return train(TASK, ModelConfig(d_head=8), RECIPE, progress=False)


@pytest.fixture(scope="module")
def study(run):
    site = Site("blocks.0.attn.hook_v", tokens=("r1",))
    return run_ablation_study(run, {"without $r1$": Zero().at(site)}, progress=False)


@pytest.fixture(scope="module")
def rates():
    return sweep({"lr": [0.01, 0.02], "seed": [0, 1]}, task=TASK, train=RECIPE, progress=False)


def pair():
    solution = solve(TASK)
    return viz.PairGeometry.of(solution.input_embeddings(), solution.output_embeddings(), TASK)


@pytest.fixture(scope="module")
def arguments(run, study, rates):
    """Arguments of every public plot function, after the axes."""
    flat = run.circuit.embeddings().coordinates(["s0", "r1", "b0"])
    strength = viz.OwnAnswerStrength.of(solve(TASK).W, TASK)
    sizes = {"n_layers": 2, "n_heads": 2, "d_model": 8, "n_ctx": 4, "d_head": 4, "d_vocab": 5}
    with warnings.catch_warnings(action="ignore"):  # that the class is deprecated
        layers = HookedTransformer(HookedTransformerConfig(**sizes, attn_only=True, seed=0, device="cpu"))
        later = copy.deepcopy(layers)
    later.blocks[1].attn.W_V.data[0] *= 1.5
    change = compare_models(layers, later, inputs=[0, 1], outputs=[2, 3], circuits=0)
    return {
        "plot_model_change": (change,),
        "plot_composition": (composition(layers),),
        "plot_direct_attribution": (direct_attribution(layers, [[0, 1, 2]], 3, 4),),
        "plot_alignment": (run.circuit.alignment(solve(TASK)),),
        "plot_attribution": (attribute(run, ["noise0", "s1", "r2", "EOS"], "c0", "c1"),),
        "plot_band": ([run.history], "beta", "#0173b2", "one seed"),
        "plot_circuit": (mechanism_graph(run).readable(),),
        "plot_coordinates": (flat,),
        "plot_energy_shares": (run.circuit.energy,),
        "plot_heatmap": (run.circuit,),
        "plot_mechanism": (strength, "#0173b2", 1.0),
        "plot_ov_circuit": (solve(TASK).W, TASK, 1.0, "logits"),
        "plot_pair_geometry": (pair(),),
        "plot_runs": (run, "beta"),
        "plot_spectrum": (run.circuit,),
        "plot_study": (study, "accuracy"),
        "plot_sweep": (rates, "beta"),
    }


def axes(solid=False):
    return Figure(figsize=(5, 4)).add_subplot(projection="3d" if solid else None)


@pytest.mark.parametrize("name", PLOTS)
def test_it_draws_on_its_axes_and_returns_them(name, arguments):
    ax = axes(name in SOLID)
    before, open_figures = len(ax.get_children()), plt.get_fignums()
    assert getattr(viz, name)(ax, *arguments[name]) is ax
    assert len(ax.get_children()) > before or ax.images or ax.collections
    ax.figure.canvas.draw()
    assert plt.get_fignums() == open_figures, "no figure beside the one that it got"


@pytest.mark.parametrize("name", [*PLOTS, "figure_style", "build_report", "html_table", "ablated_mechanism"])
def test_the_example_of_its_docstring_runs(name):
    others = {"html_table": html_table}
    function = others.get(name) or getattr(viz, name, None)
    if function is None:
        function = importlib.import_module("ocr_interp.graphs").ablated_mechanism
    plain = inspect.unwrap(function)
    module = importlib.import_module(plain.__module__)
    examples = doctest.DocTestFinder(recurse=False).find(plain, name, module=False, globs=dict(vars(module)))
    (found,) = [example for example in examples if example.examples]
    result = doctest.DocTestRunner(verbose=False).run(found)
    assert result.attempted >= 1
    assert result.failed == 0


def test_a_heat_map_of_any_circuit_shows_its_entries(run):
    part = run.circuit.restrict(["s0", "s1", "r1"], ["b0", "c0"])
    ax = viz.plot_heatmap(axes(), part)
    shown = ax.collections[0].get_array().reshape(2, 3)
    assert np.allclose(shown, part.W.T)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["s0", "s1", "r1"]
    with pytest.raises(ConfigError, match="at most 1,000,000 entries"):
        viz.plot_heatmap(axes(), _large(run))


def _large(run):
    many = TokenSet(tuple(range(1_001)), tuple(map(str, range(1_001))), ("token",), (0,) * 1_001)
    left, right = np.zeros((1_001, 1)), np.zeros((1, 1_001))
    none = {"task": None, "scores": None, "bias": np.zeros(1_001)}
    return dataclasses.replace(run.circuit, left=left, right=right, inputs=many, outputs=many, **none)


def test_a_spectrum_joins_degenerate_values():
    ax = viz.plot_spectrum(axes(), np.array([2.0, 1.99, 1.0, 0.0]), label="spectrum")
    assert [list(line.get_ydata()) for line in ax.lines] == [[2.0, 1.99], [1.0], [0.0]]
    assert ax.lines[0].get_label() == "spectrum"
    for bad in ([1.0, 2.0], [1.0, -1.0], [np.nan]):
        with pytest.raises(ConfigError, match="largest first"):
            viz.plot_spectrum(axes(), np.array(bad))


def test_bars_of_an_attribution_sum_to_its_total(run):
    found = attribute(run, ["noise0", "s1", "r2", "EOS"], "c0", "c1")
    for most in (30, 2):
        ax = viz.plot_attribution(axes(), found, most=most)
        assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(found.total, abs=1e-9)


def test_a_study_has_a_bar_for_every_ablation_and_split(study):
    ax = viz.plot_study(axes(), study, "accuracy", splits=("held_out_implication",))
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx(list(study.by_split("accuracy")["held_out_implication"]))
    with pytest.raises(UnknownNameError, match="metric"):
        viz.plot_study(axes(), study, "acuracy")
    with pytest.raises(UnknownNameError, match="split"):
        viz.plot_study(axes(), study, "accuracy", splits=("held_out",))
    assert isinstance(study, AblationStudy)


def test_a_sweep_shows_medians_and_ranges(rates):
    ax = viz.plot_sweep(axes(), rates, "beta", x="lr")
    final = rates.final().groupby("lr")["beta"]
    assert list(ax.lines[0].get_ydata()) == pytest.approx(list(final.median()))
    assert len(viz.plot_sweep(axes(), rates, "beta", hue="lr").lines) == 2
    with pytest.raises(UnknownNameError, match="axis of the sweep 'rl': did you mean 'lr'"):
        viz.plot_sweep(axes(), rates, "beta", x="rl")
    with pytest.raises(UnknownNameError, match="did you mean 'beta'"):
        viz.plot_sweep(axes(), rates, "betta")


def test_several_runs_have_a_legend_and_lines_their_names(run):
    ax = viz.plot_runs(axes(), {"one": run, "$two$": run}, "beta", lines={"saddle": 0.8})
    assert [text.get_text() for text in ax.get_legend().texts] == ["one", "$two$"]
    assert ax.texts[0].get_text() == "saddle 0.8"
    with pytest.raises(UnknownNameError, match="did you mean 'beta'"):
        viz.plot_runs(axes(), run, "betta")


def test_coordinates_in_three_dimensions_need_such_axes(run):
    solid = run.circuit.embeddings().coordinates(["s0", "r1", "b0"], 3)
    assert isinstance(viz.plot_coordinates(axes(solid=True), solid), Axes3D)
    with pytest.raises(ConfigError, match='projection="3d"'):
        viz.plot_coordinates(axes(), solid)


@pytest.mark.slow
def test_a_diagram_on_small_axes_has_small_text(run):
    graph = mechanism_graph(run).readable()
    large, small = (Figure(figsize=(w, w / 2)).add_axes((0, 0, 1, 1)) for w in (12, 6))
    sizes = [viz.plot_circuit(ax, graph).texts[0].get_fontsize() for ax in (large, small)]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.05)
    with pytest.raises(ConfigError, match="with edges"):
        viz.plot_circuit(axes(), mechanism_graph(run).__class__("t", (), (), (), "", "", "f"))


def test_a_style_changes_all_drawings_and_ends_with_its_block(run):
    with viz.figure_style(held_out="#123456", rc={"axes.grid": True}) as style:
        assert viz.current_style() is style
        frame = viz.plot_heatmap(axes(), run.circuit).patches[0]
        with viz.figure_style(positive="#654321"):
            assert viz.current_style().held_out == "#123456"
        assert plt.rcParams["axes.grid"]
    assert frame.get_edgecolor()[:3] == pytest.approx((0x12 / 255, 0x34 / 255, 0x56 / 255))
    assert viz.current_style() == Style()
    assert viz.current_style().held_out == HELD_OUT
    with pytest.raises(UnknownNameError, match="did you mean 'held_out'"), viz.figure_style(heldout="red"):
        pass
