"""A program: prepares 10,000 subjects with 1,000 answers of each relation.

It prints seconds of the processor, and bytes.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.measuring.measure import Questions
from ocr_interp.llm.models.tiny import tiny_tokenizer

N_SUBJECTS, N_ANSWERS = 10_000, 1_000
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def made_words(rng, count, length):
    """Different made-up words."""
    found = {}
    while len(found) < count:
        found["".join(rng.choice(SYLLABLES, length)).capitalize()] = None
    return list(found)


def main(folder):
    """Writes the file, then reads it and tokenizes what is asked."""
    rng = np.random.default_rng(0)
    names, answers = made_words(rng, N_SUBJECTS, 5), made_words(rng, 2 * N_ANSWERS, 4)
    rows = [
        f"{name} {names[-k]},{answers[k % N_ANSWERS]},{answers[N_ANSWERS + 7 * k % N_ANSWERS]}"
        for k, name in enumerate(names)
    ]
    file = folder / "large.csv"
    file.write_text("\n".join(("subject,fact,implication", *rows)) + "\n")
    tokenizer = tiny_tokenizer([f" {answer}" for answer in answers[:400]])
    wordings = {"fact_templates": ("{subject} lives in",), "implication_templates": ("{subject} speaks",)}
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    questions = Questions(make_facts(FactConfig(data="file", file=file, **wordings)), tokenizer, 0)
    found = {
        "seconds": time.process_time() - start,
        "bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
        "asked": len(questions.encoded),
        "answers": len(questions.encoded[0].candidates),
        "scoring": questions.scoring,
    }
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
