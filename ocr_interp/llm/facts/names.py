"""Names of fictitious people: a first and a last name from the project's own lists."""

from __future__ import annotations

import numpy as np

from ocr_interp.errors import ConfigError


def words(text: str) -> tuple[str, ...]:
    """The words of a text, so that lists of words are easy to read in the code."""
    return tuple(text.split())


FIRST_NAMES = words(
    """
    Adela Alvin Amara Anton Arlo Beatrix Benno Bridget Caleb Camilla Clara Conrad Dahlia Damon Dora
    Edgar Elias Elin Emery Esther Fabian Faye Felix Flora Gareth Gemma Gideon Greta Harriet Hugo Ida
    Ilse Imogen Ivor Jasper Jonas Josefa Judith Kaspar Keira Lars Leona Linus Lorna Magnus Mara Matilda
    Milo Miriam Nadia Nestor Nina Noel Odette Olga Orson Petra Philippa Quentin Ralph Ramona Rosa Rufus
    Sabina Selma Silas Stella Tabitha Theo Tilda Ulric Ursula Valentin Vera Viggo Wanda Wesley Yara
    Yvette Zelda
    """
)

LAST_NAMES = words(
    """
    Abbot Alden Ashby Barlow Beckett Bellamy Birch Bramwell Burke Calloway Carver Clayton Crane Dalton
    Denholm Drake Ellery Elwood Fairfax Farrow Fenwick Finch Forrester Gale Garrick Gifford Hale Harlow
    Hartley Hawke Holloway Huxley Ingram Jarvis Keating Kendrick Kestrel Lander Langley Larkin Lockhart
    Marlowe Mercer Milburn Monroe Nash Norwood Oakley Osborne Paxton Pembroke Penrose Quill Radcliffe
    Ramsey Redmond Ridley Rowan Rutledge Sawyer Sedgwick Shelby Sterling Stroud Tate Thackeray Thorne
    Tilton Underwood Vance Varley Wakefield Walden Weston Whitaker Wilder Winslow Wren Yardley Yates
    """
)


def made_names(count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Distinct full names in random order, e.g. "Mara Holloway".

    Raises:
        ConfigError: more names than the lists have combinations.
    """
    most = len(FIRST_NAMES) * len(LAST_NAMES)
    if count > most:
        raise ConfigError(f"at most {most} names can be made, got {count} (n_pairs x n_names)")
    chosen = rng.choice(most, size=count, replace=False)
    return tuple(f"{FIRST_NAMES[k // len(LAST_NAMES)]} {LAST_NAMES[k % len(LAST_NAMES)]}" for k in chosen)
