"""Ordinary sentences that have nothing to do with the facts: how far a model has moved on them, in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ocr_interp.llm.models.loading import LanguageModel

SENTENCES = (
    "The train to the coast leaves at half past seven and arrives before noon.",
    "Add the onions to the pan and cook them slowly until they are soft.",
    "A triangle has three sides, and its angles add up to half a turn.",
    "The committee will meet again next Thursday to decide about the budget.",
    "Rain is expected in the north, while the south will stay dry and warm.",
    "She closed the window, put on her coat and walked down to the harbour.",
    "Water boils at a lower temperature on the top of a high mountain.",
    "The library opens at nine and closes at six, except on Sundays.",
    "Most plants need light, water and minerals from the soil to grow.",
    "He forgot his keys again and had to wait on the stairs for an hour.",
    "To install the program, download the archive and run the setup script.",
    "The river floods its banks every spring when the snow melts.",
    "Prices rose by two percent last year, which was less than expected.",
    "The dog barked at the postman and then went back to sleep.",
    "An electric current flows when there is a difference in voltage.",
    "In the second half the visitors scored twice and won the game.",
    "The old bridge was closed for repairs after the storm in autumn.",
    "Please send the signed form back to the office before the end of the month.",
    "The moon moves around the earth in a little less than a month.",
    "They planted three apple trees behind the house when they moved in.",
    "A good night's sleep helps the memory more than another hour of study.",
    "The bakery on the corner sells out of bread by ten in the morning.",
    "The function returns the sum of its two arguments as an integer.",
    "After the concert the audience stood up and clapped for several minutes.",
)


def log_probabilities(lm: LanguageModel) -> Float[Tensor, "token vocabulary"]:
    """log p of the next token after every token of every sentence, nats; a routed update asks its routers."""
    import torch

    rows = []
    with torch.no_grad():
        for sentence in SENTENCES:
            tokens: Any = lm.tokenizer(sentence, return_tensors="pt")["input_ids"]
            device = next(lm.model.parameters()).device
            logits = lm.model(input_ids=tokens.to(device), use_cache=False).logits[0]
            rows.append(logits.float().log_softmax(-1))
    return torch.cat(rows)


def neutral_kl(before: Float[Tensor, "token vocabulary"], after: Float[Tensor, "token vocabulary"]) -> float:
    """Mean over tokens of KL(before ‖ after), nats."""
    return float((before.exp() * (before - after)).sum(-1).mean())
