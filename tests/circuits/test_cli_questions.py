"""What `circuit` and `compare` make of words: one meaning each, checked before anything is computed."""

import json

import pytest
from hooked_models import hooked_transformer

from ocr_interp import name_tokens
from ocr_interp.cli.arguments.asked import WordsOf
from ocr_interp.cli.arguments.models import read_any_model
from ocr_interp.graphs import CircuitGraph
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.models import save_model

TEXT, DONOR = "Mia plays tennis in 7", "Mia plays hockey in 7"
ASK = ("--prompt", TEXT, "--answer", " tennis", "--against", " hockey")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Mistral and a tiny Olmo of one tokenizer, and a model of labels; a folder with a short name of
    transformer-lens."""
    folder = tmp_path_factory.mktemp("asked")
    tokenizer = tiny_tokenizer([TEXT, DONOR, "Leo plays tennis in 7", "Leo likes red"] * 2)
    for family, name in (("mistral", "pythia"), ("olmo", "olmo")):
        lm = tiny_model(family, tokenizer, max_position_embeddings=16)
        lm.model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    model = hooked_transformer("LN", n_layers=2, attn_only=False, seed=0)
    name_tokens(model, [f"w {k}" if k == 9 else f"w{k}" for k in range(32)])
    save_model(model, folder / "labels.safetensors")
    (folder / "weights.pth").write_bytes(b"x")
    return folder


@pytest.fixture
def call(folder, command):
    """Runs a command with names of files in the folder."""
    return lambda *words: command(*(str(folder / w[1:]) if w.startswith("@") else w for w in words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*ASK[:2], "--answer", "tennis", *ASK[4:]), 'did you mean " tennis"?'),
        ((*ASK[:2], "--answer", " golf", *ASK[4:]), "the first, --answer id:"),
        ((*ASK[:2], "--answer", "7", *ASK[4:]), "--answer 7 may mean id:"),
        ((*ASK[:4], "--against", " tennis"), "“ tennis” as both"),
        ((*ASK[:2], "--answer", "id:99999", *ASK[4:]), "got 99999"),
        (("--prompt", " ", *ASK[2:]), "at least one token, got ' '"),
        (("--prompt", "Mia plays " * 9, *ASK[2:]), "at most 16 tokens, the model's context, got 27"),
        ((*ASK, "--donor", "Mia plays hockey"), "as many tokens as its prompt, got 3 in Mia| plays| hockey"),
        ((*ASK, "--donor", DONOR, DONOR), "one for each of 1 prompts, got 2"),
        ((*ASK, "--donor", TEXT), "--donor must differ"),
        (("--prompt", TEXT, "Mia plays", *ASK[2:]), "leave edges out with --edges 0"),
        (("--prompt", TEXT, DONOR, *ASK[2:4], "--against", " in", " red", " hockey"), "pass several"),
        (ASK[:4], "got no --against"),
        ((*ASK, "--edges", "0", "-o", "c.svg"), "--parts FILE"),
        ((*ASK, "--blocks", "3.1"), "as L3H1"),
        ((*ASK, "--faithfulness", "0"), "faithfulness must be"),
        ((*ASK, "--nodes", "0"), "nodes must be >= 1"),
        ((*ASK, "--nodes", "99", "--donor", DONOR), "--nodes must be at most 10, all heads and MLPs"),
        ((*ASK, "--faithfulness", "1.5"), "<= 1"),
        (("--prompt", TEXT, DONOR, *ASK[2:], "--donor", DONOR, DONOR), "(prompt 2)"),
        ((*ASK, "--nodes", "3", "--edges", "0"), "got --nodes too"),
        ((*ASK, "--file", "x.csv"), "leave out --prompt, --answer, --against"),
    ],
)
def test_what_a_question_may_not_be(call, words, message):
    code, out, err = call("circuit", "@pythia", *words)
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.count("\n") == 1


def test_a_pickled_model_is_refused_with_what_to_do(call):
    code, _, err = call("circuit", "@weights.pth", *ASK)
    assert code == 2
    assert "ocr_interp.models.save_model" in err


def test_every_way_to_name_a_token_is_one(folder):
    """An id, its label and its text are the same token; what is two tokens is none."""
    words = WordsOf(read_any_model(str(folder / "olmo")))
    token = words.tokenizer.encode(" tennis")[0]
    named = [words.id_of(word, "answer", words.outputs) for word in (" tennis", "Ġtennis", f"id:{token}")]
    assert named == [token] * 3
    assert words.quoted(token) == "“ tennis”"
    labels = WordsOf(read_any_model(str(folder / "labels.safetensors")))
    assert labels.prompt("w3 4 w5", "prompt") == (3, 4, 5)
    assert labels.prompt("w 9", "prompt") == (9,)


def test_prompts_are_shown_with_what_the_model_says(call, tmp_path):
    table = tmp_path / "t.json"
    words = ("--edges", "0", "--by-position", "--blocks", "L1H2", "--neurons", "0", "--parts", "p.png")
    code, out, err = call("circuit", "@pythia", *ASK, *words, "--table", str(table))
    assert (code, err) == (0, "")
    assert "Mia| plays| tennis| in| |7 (6 tokens)" in out or "Mia| plays| tennis| in| 7 (5 tokens)" in out
    assert "the model says “" in out
    assert "in pythia, weights" in out, "a folder is called as it is called"
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads(table.read_text())
    heads = {row["part"]: row["mean"] for row in kept["direct attribution"]}
    by_block = sum(row["mean"] for row in kept["L1H2 by singular block"])
    assert by_block == pytest.approx(heads["L1H2"], abs=1e-5)
    of_neurons = sum(row["mean"] for row in kept["MLP 0 by neuron"])
    assert of_neurons == pytest.approx(heads["MLP 0"], abs=1e-5)
    places = [row for row in kept["largest heads by token"] if row["part"] == "L1H2"]
    if places:
        assert sum(row["contribution"] for row in places) == pytest.approx(heads["L1H2"], abs=1e-5)


def test_several_prompts_of_labels_and_a_mean_of_rivals(call, tmp_path):
    words = ("--answer", "w7", "w6", "--against", "w8", "--edges", "8", "--steps", "1", "-o", "g.json")
    donors = ("--donor", "w3 w10 w5", "1 2 11")
    code, out, err = call("circuit", "@labels.safetensors", "--prompt", "w3 w4 w5", "1 2 3", *words, *donors)
    assert (code, err) == (0, "")
    assert "in labels.safetensors" in out
    graph = CircuitGraph.from_json((tmp_path / "g.json").read_text())
    assert "carry" in graph.title
    assert "of the effect with all others ablated" in graph.statement
    lone = ("--prompt", "w3", "w4", "w5", "--answer", "w7", "--against", "w8", "w1", "--edges", "0")
    code, out, _ = call("circuit", "@labels.safetensors", *lone)
    assert code == 0
    assert "w7 - w8, w1" in out


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_prompts_of_a_file(call, tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".csv":  # as EAP-IG has them, with ids
        path.write_text("clean,corrupted,correct_idx,incorrect_idx\n3 4 5,3 9 5,7,8\n1 2 3,1 2 10,6,8\n")
    else:
        row = {"prompt": "w3 w4 w5", "donor": "w3 w10 w5", "answer": "w7", "against": "w8"}
        path.write_text(json.dumps(row) + "\n")
    rest = ("--edges", "12", "--steps", "1", "--table", "t.json")
    code, _, err = call("circuit", "@labels.safetensors", "--file", str(path), *rest)
    assert (code, err) == (0, "")
    count = 2 if suffix == ".csv" else 1
    assert len(json.loads((tmp_path / "t.json").read_text())["prompts"]) == count
    path.write_text("clean,other\na,b\n" if suffix == ".csv" else '{"prompt": "w3"}\n')
    code, _, err = call("circuit", "@labels.safetensors", "--file", str(path))
    assert code == 2
    assert "needs a column answer or correct" in err


@pytest.mark.slow
def test_a_circuit_by_faithfulness_says_what_it_is_worth(call, tmp_path):
    words = (*ASK, "--donor", DONOR, "--faithfulness", "0.9", "--table", "t.json", "-o", "c.dot")
    code, out, err = call("circuit", "@pythia", *words)
    assert (code, err) == (0, "")
    kept = json.loads((tmp_path / "t.json").read_text())
    assert kept["faithfulness"] >= 0.9 - 1e-6
    assert f"faithfulness {kept['faithfulness']:.3f}" in out
    assert (tmp_path / "c.dot").read_text().startswith("digraph")


@pytest.mark.slow
def test_a_circuit_of_nodes_says_what_they_are_worth(call, tmp_path):
    words = (*ASK, "--donor", DONOR, "--nodes", "2", "--table", "t.json", "-o", "c.json")
    code, out, err = call("circuit", "@pythia", *words)
    assert (code, err) == (0, "")
    kept = json.loads((tmp_path / "t.json").read_text())
    assert 1 <= len(kept["nodes"]) <= 2
    assert list(kept["faithfulness of random circuits"]) == ["as many heads and MLPs"]
    assert f"Circuit({len(kept['nodes'])} of " in out
    writers = {edge["edge"].split("->")[0] for edge in kept["edges"]}
    assert writers <= {"input", *(node["node"] for node in kept["nodes"])}
    graph = CircuitGraph.from_json((tmp_path / "c.json").read_text())
    assert "heads and MLPs carry" in graph.statement
    share = f"{kept['faithfulness'] - 0.001:.4f}"  # one head or MLP has it, or these two
    code, out, err = call("circuit", "@pythia", *words[:-4], "--faithfulness", share)
    assert (code, err) == (0, "")
    one = float(out.split("faithfulness ")[1].split(":")[0])
    assert one >= kept["faithfulness"] - 0.002
    few = (*ASK, "--donor", DONOR, "--nodes", "1", "--faithfulness", "1")
    code, _, err = call("circuit", "@pythia", *few)
    assert code == 2
    assert "none of 1 to 1 heads and MLPs carry 1, the best 1 carry" in err


@pytest.mark.slow
def test_compare_asks_both_models_the_same_and_draws_heads(call, tmp_path):
    same = ("compare", "@pythia", "@pythia", *ASK)
    code, out, err = call(*same, "--edges", "0", "--heads", "h.svg")
    assert (code, err) == (0, "")
    assert "nothing changed: both have the same weights" in out
    assert (tmp_path / "h.svg").stat().st_size > 1000
    code, out, err = call("compare", "@pythia", "@olmo", *ASK, "--edges", "0")
    assert (code, out) == (2, "") or "family" in err
    assert "two models that are compared must have the same architecture" in err
    code, out, err = call("compare", "@labels.safetensors", "--inputs", "w1", "--outputs", "w2")
    assert "which is no adapter: name the model after it too" in err
